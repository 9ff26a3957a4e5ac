"""Items and pasts as words, against examples made by hand."""

import pytest

from encoders.text import EMPTY_PAST, Past, item_text, past_text


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {
                "item_id": "7",
                "category": "electronics.smartphone",
                "brand": "samsung",
                "price": 3.5,
                "group": "x",
            },
            "electronics smartphone, samsung",
        ),
        ({"item_id": "7", "category": "furniture.living_room.cabinet"}, "furniture living room cabinet"),
        ({"item_id": "7", "title": "  WHITE  HANGING HEART\n"}, "WHITE HANGING HEART"),
        (
            {"item_id": "7", "title": "Version 2.0 of my_file.txt", "size": "3.5"},
            "Version 2.0 of my_file.txt, 3.5",
        ),
        ({"item_id": "7", "brand": "apple", "maker": "apple"}, "apple"),
        ({"item_id": "7", "category": None, "brand": " "}, "7"),
    ],
)
def test_item_text_reads_as_words(row: dict[str, object], expected: str) -> None:
    assert item_text(row) == expected


def test_past_text_names_strongest_first_and_newest_first() -> None:
    behaviours = [("purchase", "b"), ("view", "e"), ("cart", "c"), ("purchase", "a"), ("view", "d")]

    text = past_text(behaviours, history_items=20)

    assert text == "purchased: a; b. added to cart: c. viewed: d; e"


def test_past_text_merges_duplicates_under_the_strongest_behaviour() -> None:
    behaviours = [
        ("view", "a"),
        ("purchase", "a"),
        ("view", "b"),
        ("view", "a"),
        ("view", "b"),
        ("view", "c"),
    ]

    text = past_text(behaviours, history_items=20)

    assert text == "purchased: a. viewed: c; b"


def test_past_text_keeps_the_items_acted_on_latest() -> None:
    behaviours = [("purchase", "a"), ("view", "b"), ("view", "c"), ("view", "a"), ("view", "d")]

    assert past_text(behaviours, history_items=2) == "purchased: a. viewed: d"
    assert past_text(behaviours, history_items=3) == "purchased: a. viewed: d; c"


def test_past_text_puts_unknown_behaviours_after_deliberate_acts() -> None:
    behaviours = [("view", "a"), ("play_trailer", "b"), ("cart", "c"), ("return", "d")]

    assert past_text(behaviours, 20) == "returned: d. added to cart: c. play trailer: b. viewed: a"


def test_past_text_when_empty() -> None:
    assert past_text([], 20) == EMPTY_PAST == Past().text(20)
