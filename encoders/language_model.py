"""Texts to vectors by any Hugging Face encoder or decoder."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.clip import ClipTexts, is_clip
from encoders.config import Pooling, Precision
from encoders.hugging_face import PaddedModel, is_decoder, load_config, unloadable
from encoders.model_files import ModelError, ModelFiles, default_pooling, read_config
from encoders.packed_bert import PackedModel, is_packable

CHUNK_TEXTS = 256  # tokenised at a time, while the model reads those before


@dataclass(frozen=True)
class Encoded:
    """Embeddings of some texts, in their order."""

    vectors: NDArray[np.float32]  # [B, D], of length 1; 0 where there is a problem
    num_tokens: NDArray[np.int32]  # [B], as read
    cut: NDArray[np.bool_]  # [B], whether the text was longer than max_tokens
    problems: dict[int, str]  # why the model could not take a text, by row


class _Backend(Protocol):
    """A model in memory with its tokenizer."""

    width: int

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.bool_]]:
        """Token ids of each text, and whether it was cut. Safe to call beside ``pooled``."""

    def pooled(self, tokens: Sequence[list[int]]) -> Tensor:
        """Pooled vectors of tokenised texts, longest first. [B, D]."""


def choose_precision(precision: Literal["auto"] | Precision, *, gpu: bool) -> Precision:
    """``auto`` is bf16 where the hardware multiplies in it, else fp32."""
    if precision != "auto":
        return precision
    if gpu:
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else True
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16" if fast else "fp32"


def choose_pooling(pooling: Literal["auto"] | Pooling, files: ModelFiles) -> Pooling:
    """``auto`` is what the model's files name, else the last token for decoders and the mean for encoders.

    Raises:
        ModelError: The files name a pooling that is not supported, or the model is neither of the two kinds.
    """
    if is_clip(files):
        if pooling not in ("auto", "last"):
            raise ModelError(
                f"encoder.pooling: expected auto, as CLIP pools by itself, got {pooling}. Leave it out."
            )
        return "last"
    if pooling != "auto":
        return pooling
    named = default_pooling(files)
    if named is not None:
        return named
    if is_packable(files):
        return "mean"
    return "last" if is_decoder(files) else "mean"


def model_width(files: ModelFiles) -> int:
    """Width of the model's vectors, D.

    Raises:
        ModelError: The model is neither encoder nor decoder.
    """
    if is_clip(files):
        return int(load_config(files).projection_dim)
    packable = is_packable(files)  # then without transformers, whose import takes seconds
    return int(read_config(files)["hidden_size"] if packable else load_config(files).hidden_size)


class LanguageModel:
    """A frozen model in memory: texts in, vectors of length 1 out."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        pooling: Literal["auto"] | Pooling = "auto",
        precision: Literal["auto"] | Precision = "auto",
        max_tokens: int = 128,
        batch_tokens: int = 2048,
        device: str = "cpu",
    ) -> None:
        """Load the model's files; no network.

        Raises:
            ModelError: The files cannot be loaded, or ``max_tokens`` is above what the model reads.
        """
        self.files = files
        self.pooling = choose_pooling(pooling, files)
        self.precision = choose_precision(precision, gpu=device != "cpu")
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        try:
            self._backend = self._load(dtype, torch.device(device))
        except ModelError:
            raise
        except Exception as error:  # transformers, tokenizers and safetensors each raise their own
            raise ModelError(unloadable(files, error)) from error
        self.width = self._backend.width

    def _load(self, dtype: torch.dtype, device: torch.device) -> _Backend:
        if is_clip(self.files):
            return ClipTexts(self.files, dtype, self.max_tokens, device)
        multiplies = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if device.type == "cpu" and multiplies and is_packable(self.files):
            return PackedModel(self.files, self.pooling, dtype, self.max_tokens)
        return PaddedModel(self.files, self.pooling, dtype, self.max_tokens, device)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Embeddings of texts. Batches are of like length, under ``batch_tokens`` tokens with padding.

        A thread tokenises what comes next while the model reads. A text that has no token, or whose vector is
        not finite, is named in ``problems`` and stops nothing.
        """
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)  # [B, D]
        lengths = np.zeros(len(texts), dtype=np.int32)
        cut = np.zeros(len(texts), dtype=np.bool_)
        for rows, tokens, was_cut in self._tokenized(texts):
            lengths[rows] = [len(ids) for ids in tokens]
            cut[rows] = was_cut
            batches = list(length_batches(lengths[rows], self.batch_tokens))
            pooled = [self._backend.pooled([tokens[place] for place in batch]) for batch in batches]
            for batch, part in zip(batches, pooled, strict=True):  # a GPU has them all queued by now
                vectors[rows[batch]] = nn.functional.normalize(part.float(), dim=-1).cpu().numpy()
        finite = np.isfinite(vectors).all(axis=1)
        vectors[~finite] = 0.0
        problems = {int(row): "the model's vector is not finite" for row in np.flatnonzero(~finite)}
        problems |= {int(row): "the tokenizer finds no token in it" for row in np.flatnonzero(lengths == 0)}
        return Encoded(vectors, lengths, cut, problems)

    def _tokenized(
        self, texts: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], list[list[int]], NDArray[np.bool_]]]:
        """Rows of a chunk, their tokens, and whether they were cut; long texts first."""
        order = np.argsort([-len(text) for text in texts], kind="stable")
        chunks = [order[start : start + CHUNK_TEXTS] for start in range(0, len(order), CHUNK_TEXTS)]
        with ThreadPoolExecutor(1) as thread:
            ahead = [
                thread.submit(self._backend.tokenize, [texts[row] for row in rows]) for rows in chunks[:1]
            ]
            for place, rows in enumerate(chunks):
                tokens, cut = ahead.pop().result()
                for later in chunks[place + 1 : place + 2]:
                    ahead.append(thread.submit(self._backend.tokenize, [texts[row] for row in later]))
                yield rows, tokens, cut


def length_batches(lengths: NDArray[np.int32], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows in batches of like length, longest first: rows times longest stay within ``batch_tokens``.

    A text above the budget is a batch of its own; one without tokens is in none.
    """
    order = np.argsort(-lengths, kind="stable")[: int((lengths > 0).sum())]
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size
