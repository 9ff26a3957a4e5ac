"""A column of repeating texts as numbers and the distinct texts they stand for: work once a distinct text."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

MISSING_WORDS = ("", "nan", "null", "none")  # what exporters write for no user and no item


@dataclass(frozen=True)
class Coded:
    """A column of n rows over its distinct texts."""

    codes: NDArray[np.int32]  # [n], -1 where there is no text
    values: pl.Series  # [distinct], in order of first occurrence

    def spread(self, per_value: pl.Series) -> pl.Series:
        """What holds for each distinct text, for each row; null where there is no text. As long as ``codes``."""
        padded = per_value.extend_constant(None, 1)  # a code of -1 takes the last
        return padded.gather(np.where(self.codes < 0, len(per_value), self.codes))

    def flags(self, per_value: pl.Series) -> NDArray[np.bool_]:
        """``spread`` of yes and no, no where there is no text. [n]"""
        known = np.append(per_value.fill_null(False).to_numpy(), False)
        return np.asarray(known[self.codes], dtype=np.bool_)


def encode(texts: pl.Series) -> Coded:
    """Number the distinct texts of a column."""
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    codes = pl.Series(pl.from_arrow(array.indices)).fill_null(-1)
    values = pl.Series(pl.from_arrow(array.dictionary), dtype=pl.String)
    return Coded(codes.to_numpy(), values)


def clean(column: Coded) -> Coded:
    """Texts without blanks around them, and none where a text says nothing."""
    texts = cleaned(column.values)
    if texts.equals(column.values):
        return column
    inner = encode(texts)
    return Coded(np.append(inner.codes, np.int32(-1))[column.codes], inner.values)


def cleaned(texts: pl.Series) -> pl.Series:
    """Stripped texts, null where they say nothing."""
    stripped = texts.str.strip_chars()
    short = stripped.str.len_bytes() <= max(map(len, MISSING_WORDS))
    if not short.any():
        return stripped
    says_nothing = stripped.set(~short, None).str.to_lowercase().is_in(MISSING_WORDS)
    return stripped.set(says_nothing.fill_null(False), None)
