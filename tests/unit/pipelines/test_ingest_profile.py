from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa

from encoders.columns import IngestConfig
from pipelines.artifacts import RunDirectory
from pipelines.ingest_parts import read_ipc
from pipelines.ingest_plan import Plan
from pipelines.ingest_profile import Acts, add_up, profile_lines, profile_page, shard_profile

DAY = 86_400_000_000
FUNNEL = [("view", "purchase")]


def plan(tmp_path: Path) -> Plan:
    names = ("view", "purchase", "impression")
    return Plan(IngestConfig(), names, (), (), 2, 0, None, frozenset(), RunDirectory(str(tmp_path)))


def acts(rows: list[tuple[int, int, int, int, int]]) -> Acts:
    """Rows of (user, session, item, behaviour, day)."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return Acts(*columns[:4], columns[4] * DAY + 5)


def test_shards_add_up_to_what_can_be_counted_by_hand(tmp_path: Path) -> None:
    ours = plan(tmp_path)
    shards = [
        shard_profile(ours, 0, acts([(0, 0, 4, 0, 10), (0, 0, 4, 1, 10), (0, 1, 2, 0, 12)])),
        shard_profile(ours, 1, acts([(0, 0, 4, 0, 12), (0, 0, 4, 2, 12)])),
    ]
    result = {"rows_in": 7, "rows_kept": 5, "rows_rejected": {"duplicate": 2}}
    items = pa.table({"item_id": ["a", "b", "c"], "title": ["A", None, "C"]})

    profile = add_up(ours, shards, result, items)

    assert profile["days"] == {"view": [1, 0, 2], "purchase": [1, 0, 0], "impression": [0, 0, 1]}
    assert (profile["first_day"], profile["last_day"]) == ("1970-01-11", "1970-01-13")
    assert profile["session_lengths"] == {"1": 2, "2": 1} and profile["num_sessions"] == 3
    assert profile["user_activity"] == {"2": 2}  # one user with 3 rows, one with 2
    assert profile["item_activity"] == {"1": 1, "4": 1} and profile["num_silent_items"] == 1
    assert profile["sessions_with"] == {"view": 3, "purchase": 1, "impression": 1}
    assert profile["text_coverage"] == {"title": 1 - 1 / 3}
    assert read_ipc(ours.parts, "profile-00000.arrow")["n"].to_list() == [1, 2]
    lines = "\n".join(profile_lines(profile, FUNNEL))
    assert "5 of 7 kept; rejected: duplicate 2" in lines
    assert "purchase in 33.3% of those with view" in lines
    page = profile_page(profile, FUNNEL, "<log> & co")
    body = ElementTree.fromstring(
        page.split("-->", 1)[-1].replace("<!DOCTYPE html>", "").replace('<meta charset="utf-8">', "")
    )
    assert body.findtext("body/h1") == "<log> & co"
    assert len(body.findall(".//svg[@class='days']")) == 3
    assert "33.33% of the sessions with view have purchase." in page


def test_an_empty_shard_has_a_profile(tmp_path: Path) -> None:
    assert shard_profile(plan(tmp_path), 0, acts([])) == {
        "days": {},
        "lengths": {},
        "activity": {},
        "together": [[0] * 3] * 3,
    }
