"""The profile of what was ingested: counts by shard, added up, on the terminal and as a page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from encoders.coded import encode
from pipelines.ingest_base import shard_files
from pipelines.ingest_parts import read_ipc, write_ipc
from pipelines.ingest_plan import Plan

PAGE = "profile.html"
DAY_US = 86_400_000_000
LONGEST = 20  # sessions of more behaviours share a bar
COLUMNS = ["user_id", "session_id", "item_id", "behaviour", "timestamp"]


@dataclass(frozen=True)
class Acts:
    """Rows as numbers."""

    user: NDArray[np.int64]  # [n]
    session: NDArray[np.int64]  # [n]
    item: NDArray[np.int64]  # [n], as ``items.arrow`` has them
    behaviour: NDArray[np.int64]  # [n], index into the plan's behaviours
    time_us: NDArray[np.int64]  # [n]


def published_acts(plan: Plan, shard: int) -> Acts:
    """All rows of a shard, those of the ingest that is added to included."""
    assert plan.base is not None
    folders = [plan.base.folder.folder("behaviours"), plan.folder.folder("behaviours")]
    names = [shard_files(folder.files()).get(shard, []) for folder in folders]
    tables = [
        f.read_table(name, columns=COLUMNS) for f, own in zip(folders, names, strict=True) for name in own
    ]
    rows = pl.DataFrame(pa.concat_tables(tables))
    items = read_ipc(plan.parts, "items.arrow").with_row_index("number")
    behaviours = {name: number for number, name in enumerate(plan.behaviours)}
    item = rows.join(items, on="item_id", how="left", maintain_order="left")["number"]
    return Acts(
        encode(rows["user_id"]).codes.astype(np.int64),
        encode(rows["session_id"]).codes.astype(np.int64),
        item.cast(pl.Int64).to_numpy(),
        rows["behaviour"].replace_strict(behaviours, return_dtype=pl.Int64).to_numpy(),
        rows["timestamp"].dt.timestamp("us").to_numpy(),
    )


def shard_profile(plan: Plan, shard: int, acts: Acts) -> dict[str, Any]:
    """Counts of a shard's rows; those by item go to a file.

    Returns:
        ``days`` {day since 1970: rows by behaviour}, ``lengths`` {behaviours of a session, impressions not counted:
        sessions}, ``activity`` {rows of a user, rounded down to a power of 2: users}, and ``together`` [K, K],
        sessions that have both.
    """
    kinds = len(plan.behaviours)
    counted = np.bincount(acts.item)
    seen = np.flatnonzero(counted)
    write_ipc(plan.parts, f"profile-{shard:05d}.arrow", pl.DataFrame({"item": seen, "n": counted[seen]}))
    day = acts.time_us // DAY_US
    first = int(day.min()) if len(day) else 0
    per_day = np.bincount((day - first) * kinds + acts.behaviour, minlength=kinds)
    per_day = _padded(per_day, kinds)
    in_session, acted = np.bincount(acts.session), acts.behaviour != kinds - 1  # impressions come last
    counted_acts = np.bincount(acts.session[acted], minlength=len(in_session))[in_session > 0]
    lengths = np.bincount(np.minimum(counted_acts, LONGEST + 1))
    rows = np.bincount(acts.user)
    activity = np.bincount(np.log2(np.maximum(rows[rows > 0], 1)).astype(np.int64))
    has = np.zeros((int(acts.session.max(initial=-1)) + 1, kinds), dtype=np.float32)
    has[acts.session, acts.behaviour] = 1.0
    return {
        "days": {str(first + n): row.tolist() for n, row in enumerate(per_day) if row.any()},
        "lengths": {str(n): int(c) for n, c in enumerate(lengths) if c},
        "activity": {str(2**n): int(c) for n, c in enumerate(activity) if c},
        "together": (has.T @ has).astype(np.int64).tolist(),
    }


def add_up(
    plan: Plan, shards: Sequence[Mapping[str, Any]], result: Mapping[str, Any], items: pa.Table
) -> dict[str, Any]:
    """The profile of all shards.

    Args:
        plan: The work.
        shards: What ``shard_profile`` told of each.
        result: Ingest's counts.
        items: The item table.
    """
    days: Counter[tuple[str, int]] = Counter()
    for shard in shards:
        days.update({(day, n): count for day, row in shard["days"].items() for n, count in enumerate(row)})
    first, last = (pick((int(day) for day, _ in days), default=0) for pick in (min, max))
    span = [str(day) for day in range(first, last + 1)]
    rows = pl.concat([read_ipc(plan.parts, f"profile-{n:05d}.arrow") for n in range(plan.num_shards)])
    per_item = rows.group_by("item").agg(pl.col("n").sum())["n"].to_numpy()
    item_activity = np.bincount(np.log2(np.maximum(per_item, 1)).astype(np.int64))
    together = np.sum([shard["together"] for shard in shards], axis=0)
    texts = [c for c in items.column_names if c != "item_id"]
    return {
        "rows": {key: result[key] for key in ("rows_in", "rows_kept", "rows_rejected")},
        "first_day": str(date(1970, 1, 1) + timedelta(days=first)),
        "last_day": str(date(1970, 1, 1) + timedelta(days=last)),
        "days": {
            name: [days[day, n] for day in span]
            for n, name in enumerate(plan.behaviours)
            if any(days[day, n] for day in span)
        },
        "session_lengths": _summed(shards, "lengths"),
        "user_activity": _summed(shards, "activity"),
        "item_activity": {str(2**n): int(c) for n, c in enumerate(item_activity) if c},
        "num_silent_items": items.num_rows - len(per_item),
        "text_coverage": {c: 1 - items[c].null_count / max(items.num_rows, 1) for c in texts},
        "num_sessions": sum(_summed(shards, "lengths").values()),
        "sessions_with": {
            name: int(together[n, n]) for n, name in enumerate(plan.behaviours) if together[n, n]
        },
        "sessions_with_both": {
            f"{a} and {b}": int(together[i, j])
            for i, a in enumerate(plan.behaviours)
            for j, b in enumerate(plan.behaviours)
            if i < j and together[i, j]
        },
    }


def profile_lines(profile: Mapping[str, Any], funnel: Sequence[tuple[str, str]]) -> list[str]:
    """A few lines for the terminal; ``funnel`` holds pairs of a task and the one it comes after."""
    rows = profile["rows"]
    rejected = ", ".join(f"{r} {n:,}" for r, n in sorted(rows["rows_rejected"].items(), key=lambda e: -e[1]))
    counts = ", ".join(f"{name} {sum(days):,}" for name, days in profile["days"].items())
    coverage = ", ".join(f"{name} {share:.0%}" for name, share in profile["text_coverage"].items()) or "none"
    steps = [
        f"{child} in {part:.1%} of those with {parent}"
        for parent, child, part in funnel_shares(profile, funnel)
    ]
    sessions, users, items = (profile[name] for name in ("session_lengths", "user_activity", "item_activity"))
    return [
        f"rows       {rows['rows_kept']:,} of {rows['rows_in']:,} kept; rejected: {rejected or 'none'}",
        f"behaviours {counts}; {profile['first_day']} to {profile['last_day']}",
        f"sessions   {profile['num_sessions']:,}; {_share(sessions, 1):.0%} of one behaviour",
        f"users      {sum(users.values()):,}; {_share(users, 1):.0%} with one row",
        f"items      {sum(items.values()):,}; {_share(items, 1):.0%} with one row, "
        f"{profile['num_silent_items']:,} more with none",
        f"item text  {coverage}",
        f"funnel     {'; '.join(steps) or 'no task comes after another'}",
    ]


def funnel_shares(
    profile: Mapping[str, Any], funnel: Sequence[tuple[str, str]]
) -> list[tuple[str, str, float]]:
    """Of the sessions with a behaviour, the share that has the one that comes after it: parent, child, share."""
    both, alone = profile["sessions_with_both"], profile["sessions_with"]
    return [
        (a, b, (both.get(f"{a} and {b}", 0) or both.get(f"{b} and {a}", 0)) / alone[a])
        for a, b in funnel
        if alone.get(a)
    ]


def profile_page(profile: Mapping[str, Any], funnel: Sequence[tuple[str, str]], title: str) -> str:
    """The page, whole in itself."""
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    )
    shares = funnel_shares(profile, funnel)
    return template.render(title=title, profile=profile, shares=shares, longest=LONGEST)


def _padded(counts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    return np.append(counts, np.zeros(-len(counts) % width, dtype=np.int64)).reshape(-1, width)


def _summed(shards: Sequence[Mapping[str, Any]], what: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(shard[what])
    return {key: total[key] for key in sorted(total, key=int)}


def _share(counts: Mapping[str, int], key: int) -> float:
    return counts.get(str(key), 0) / max(sum(counts.values()), 1)
