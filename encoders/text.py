"""What the language model reads: an item as words, and a user's past as a sentence."""

import re
from collections.abc import Iterable, Mapping
from itertools import islice

EMPTY_PAST = "no purchases or views yet"

# Strongest first: what says most about a user comes first and is the last to be cut.
_PHRASES = {
    "return": "returned",
    "purchase": "purchased",
    "cart": "added to cart",
    "subscribe": "subscribed to",
    "share": "shared",
    "like": "liked",
    "comment": "commented on",
    "save": "saved",
    "rate": "rated",
    "watch": "watched",
    "read": "read",
    "click": "clicked",
    "view": "viewed",
}
# Behaviours that the list does not know stand between deliberate acts and mere looks.
_UNKNOWN = list(_PHRASES).index("watch") - 0.5
_RANKS = {behaviour: float(rank) for rank, behaviour in enumerate(_PHRASES)}

# Columns of the item table that are no text.
IMAGE = "image"  # path or URI of the item's picture
NOT_TEXT = ("item_id", "price", "group", IMAGE)
_CODE = re.compile(r"[^\s]*[^\W\d_][._]+[^\W\d_][^\s]*")
_DOTS = re.compile(r"(?<=[^\W\d_])[._]+(?=[^\W\d_])|_+")


def item_text(row: Mapping[str, object]) -> str:
    """An item as readable words: its text columns in their order, joined by commas.

    Codes become words: ``electronics.smartphone`` and ``samsung`` read "electronics smartphone, samsung".
    Values that repeat are named once. An item without text is its ``item_id``.
    """
    parts: dict[str, None] = {}
    for column, value in row.items():
        if column in NOT_TEXT or not isinstance(value, str):
            continue
        text = _words(value)
        if text:
            parts[text] = None
    return ", ".join(parts) or str(row["item_id"])


def _words(value: str) -> str:
    text = " ".join(value.split())
    return _DOTS.sub(" ", text).strip() if _CODE.fullmatch(text) else text


class Past:
    """A user's behaviours so far, as a sentence at any time. Adding one takes constant time."""

    def __init__(self) -> None:
        self._strongest: dict[str, str] = {}  # item text: its strongest behaviour; latest acted on last

    def add(self, behaviour: str, text: str) -> None:
        """Take in the next behaviour; call in order of time."""
        before = self._strongest.pop(text, behaviour)
        self._strongest[text] = min(before, behaviour, key=_strength)

    def text(self, history_items: int) -> str:
        """The past as ``past_text`` gives it."""
        if not self._strongest:
            return EMPTY_PAST
        by_behaviour: dict[str, list[str]] = {}
        for text, behaviour in islice(reversed(self._strongest.items()), history_items):
            by_behaviour.setdefault(behaviour, []).append(text)
        ordered = sorted(by_behaviour, key=_strength)
        return ". ".join(
            f"{_phrase(behaviour)}: {'; '.join(by_behaviour[behaviour])}" for behaviour in ordered
        )


def past_text(behaviours: Iterable[tuple[str, str]], history_items: int) -> str:
    """A user's past as a sentence: "purchased: a; b. added to cart: c. viewed: d".

    Strongest behaviours first, newest items first within each. Items that read the same are one, named under
    the strongest of their behaviours and as new as the latest of them.

    Args:
        behaviours: Behaviour and item text, oldest first, without impressions.
        history_items: How many of the items acted on latest are named.

    Returns:
        The sentence; ``EMPTY_PAST`` where there are no behaviours.
    """
    past = Past()
    for behaviour, text in behaviours:
        past.add(behaviour, text)
    return past.text(history_items)


def _strength(behaviour: str) -> tuple[float, str]:
    return _RANKS.get(behaviour, _UNKNOWN), behaviour


def _phrase(behaviour: str) -> str:
    return _PHRASES.get(behaviour) or behaviour.replace("_", " ")
