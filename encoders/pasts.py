"""The past of every session and user of a log, as texts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import polars as pl

from encoders.columns import IMPRESSION
from encoders.text import Past


@dataclass(frozen=True)
class PastTexts:
    """Texts of the pasts: before each session, and at the end of the log."""

    session_ids: list[str]  # [S], by user, then start
    sessions: list[str]  # [S]
    user_ids: list[str]  # [U]
    users: list[str]  # [U]


def past_texts(behaviours: pl.DataFrame, item_texts: Mapping[str, str], history_items: int) -> PastTexts:
    """What each session's user did before it began, and each user in all, as ``past_text`` renders it.

    A behaviour belongs to a session's past if it is of an earlier moment than the session's first row,
    whatever session it is of: sessions of a user may overlap, and none may know what comes later. Impressions
    are no behaviours of the user, but they do begin sessions.

    Args:
        behaviours: Rows of whole users: user_id, session_id, item_id, behaviour, timestamp.
        item_texts: Text of each item.
        history_items: How many items a text names.

    Raises:
        ValueError: An item of the rows has no text.
    """
    sessions = (
        behaviours.group_by("session_id")
        .agg(pl.col("user_id").first(), pl.col("timestamp").min().to_physical().alias("start"))
        .sort("user_id", "start", "session_id")
        .select("user_id", "session_id", "start")
    )
    acted = _Rows(behaviours, item_texts)
    out = PastTexts([], [], [], [])
    for user, group in groupby(sessions.iter_rows(), key=itemgetter(0)):
        past = Past()
        for _, session, start in group:
            for behaviour, text in acted.take(user, start):
                past.add(behaviour, text)
            out.session_ids.append(session)
            out.sessions.append(past.text(history_items))
        for behaviour, text in acted.take(user, None):
            past.add(behaviour, text)
        out.user_ids.append(user)
        out.users.append(past.text(history_items))
    return out


class _Rows:
    """The behaviours by user and time, read once from front to back."""

    def __init__(self, behaviours: pl.DataFrame, item_texts: Mapping[str, str]) -> None:
        rows = behaviours.filter(pl.col("behaviour") != IMPRESSION).sort(
            "user_id", "timestamp", maintain_order=True
        )
        unknown = sorted(set(rows["item_id"].unique()) - item_texts.keys())
        if unknown:
            raise ValueError(
                f"behaviours: expected items of the item table, got {unknown[0]!r}. Ingest again."
            )
        self._users = rows["user_id"].to_list()
        self._times = rows["timestamp"].to_physical().to_list()
        self._behaviours = rows["behaviour"].to_list()
        self._texts = [item_texts[item] for item in rows["item_id"].to_list()]
        self._next = 0

    def take(self, user: str, before: int | None) -> Iterator[tuple[str, str]]:
        """The user's next behaviours, those of an earlier moment than ``before`` or all that are left."""
        row = self._next
        while (
            row < len(self._users)
            and self._users[row] == user
            and (before is None or self._times[row] < before)
        ):
            yield self._behaviours[row], self._texts[row]
            row += 1
        self._next = row
