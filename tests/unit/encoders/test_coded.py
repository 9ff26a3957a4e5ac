import polars as pl
import pytest

from encoders.coded import cleaned, order


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["b", "", "a"],
        ["12345678z", "12345678a", "12345678"],  # the same first eight bytes
        ["zzzzzzzz", "aaaaaaaa", "éclairs1", "日本日本日本"],
        [f"{n * 7919 % 1000:09d}" for n in range(1000)],
    ],
)
def test_texts_are_ordered_by_their_bytes(texts: list[str]) -> None:
    series = pl.Series(["out", *texts], dtype=pl.String)[1:]  # begins inside its buffers

    places = order(series)

    assert [texts[place] for place in places] == sorted(texts, key=str.encode)


def test_texts_that_say_nothing_are_none_and_others_lose_their_blanks() -> None:
    texts = pl.Series([" a ", "", "  ", "NaN", "null ", "None", "nonesuch", "nil", None])

    assert cleaned(texts).to_list() == ["a", None, None, None, None, None, "nonesuch", "nil", None]
