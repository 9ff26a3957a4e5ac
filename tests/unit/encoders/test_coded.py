import polars as pl

from encoders.coded import cleaned


def test_texts_that_say_nothing_are_none_and_others_lose_their_blanks() -> None:
    texts = pl.Series([" a ", "", "  ", "NaN", "null ", "None", "nonesuch", "nil", None])

    assert cleaned(texts).to_list() == ["a", None, None, None, None, None, "nonesuch", "nil", None]
