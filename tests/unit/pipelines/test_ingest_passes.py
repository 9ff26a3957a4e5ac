import hmac
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.columns import IngestConfig
from pipelines.artifacts import ArtifactError, RunDirectory
from pipelines.ingest_files import cut, find_files, survey
from pipelines.ingest_items import number_items
from pipelines.ingest_plan import Plan, pseudonyms
from pipelines.ingest_settle import _by_user_and_time, read_settled, settle
from pipelines.ingest_spread import spread

WORDS = ["", "u", "v", "i", "view", "click", "2020-01-01", "1577836800", "x" * 9, "7"]


def plan(tmp_path: Path, *, num_shards: int = 3, key: bytes | None = None, **config: object) -> Plan:
    ours = IngestConfig.model_validate(config)
    files = find_files(str(tmp_path / "log"), "paths.log", ours.format)
    return Plan(
        config=ours,
        behaviours=("view", "purchase", "impression"),
        files=tuple(files),
        pieces=tuple(cut(files, survey(files), ours.format)),
        num_shards=num_shards,
        now_us=1_700_000_000_000_000,
        key=key,
        forgotten=frozenset(),
        folder=RunDirectory(str(tmp_path / "out")),
    )


def write_log(tmp_path: Path, *files: str) -> None:
    (tmp_path / "log").mkdir(exist_ok=True)
    for number, text in enumerate(files):
        (tmp_path / "log" / f"{number}.csv").write_text(
            "user_id,item_id,behaviour,timestamp\n" + text, "utf-8"
        )


def run(plan: Plan) -> tuple[list[dict], list[dict]]:  # type: ignore[type-arg]
    """Both passes."""
    spreads = [spread(plan, number) for number in range(len(plan.pieces))]
    number_items(plan, [(n, batch) for n, report in enumerate(spreads) for batch in range(report["batches"])])
    return spreads, [settle(plan, shard) for shard in range(plan.num_shards)]


def kept_rows(plan: Plan) -> pl.DataFrame:
    shards = [read_settled(plan, shard, "settled") for shard in range(plan.num_shards)]
    users = [s.rows.select(s.names.gather(s.rows["user"]).alias("user_id"), "timestamp") for s in shards]
    return pl.concat(users)


def test_a_user_lies_whole_in_one_shard_and_repeats_across_files_go(tmp_path: Path) -> None:
    lines = [f"u{n % 20},i{n},view,2020-01-01 00:{n % 60:02}:00\n" for n in range(60)]
    write_log(tmp_path, "".join(lines[:40]), "".join(lines[20:]))
    ours = plan(tmp_path)

    spreads, settled = run(ours)

    assert [report["rows_in"] for report in spreads] == [40, 40]
    assert sum(report["num_users"] for report in settled) == kept_rows(ours)["user_id"].n_unique() == 20
    assert sum((Counter(report["rejected"]) for report in settled), Counter()) == {"duplicate": 20}
    rejected = ours.folder.read_table("rejected").to_pylist()
    assert sorted(row["line"] for row in rejected) == list(range(2, 22))
    assert {(row["file"], row["reason"]) for row in rejected} == {("1.csv", "duplicate")}


def test_rejected_rows_name_file_line_and_reason(tmp_path: Path) -> None:
    write_log(tmp_path, "u,i,view,2020-01-01\n,i,view,2020-01-01\nu,i,click,2020-01-01\n", "u,i,view,x\n")

    run(ours := plan(tmp_path))

    assert [tuple(row.values()) for row in ours.folder.read_table("rejected").to_pylist()] == [
        ("0.csv", 3, "missing_user"),
        ("0.csv", 4, "unknown_behaviour"),
        ("1.csv", 2, "unreadable_time"),
    ]


def test_pseudonyms_are_keyed_and_raw_ids_are_on_no_disk(tmp_path: Path) -> None:
    write_log(tmp_path, "".join(f"secretuser{n},i,view,2020-01-01\n" for n in range(5)))

    run(ours := plan(tmp_path, key=b"key"))

    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"secretuser" not in written
    users = set(kept_rows(ours)["user_id"])
    assert len(users) == 5 and all(len(user) == 32 for user in users)
    ours.parts.delete()
    run(other := plan(tmp_path, key=b"another"))
    assert not users & set(kept_rows(other)["user_id"])


def test_a_finished_task_is_not_done_again(tmp_path: Path) -> None:
    write_log(tmp_path, "u,i,view,2020-01-01\n")
    ours = plan(tmp_path)
    first = run(ours)
    write_log(tmp_path, "")

    assert run(ours) == first


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    write_log(tmp_path, "u,i,view,2020-01-01\n")

    with pytest.raises(ArtifactError) as caught:
        run(plan(tmp_path, columns={"item_id": "sku"}))

    assert str(caught.value) == (
        "ingest.columns.item_id: expected a column 'sku' in 0.csv, found user_id, item_id, behaviour, timestamp. "
        "Map it to one that is there, as ingest.columns.item_id=user_id."
    )


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", "garbage\n{]\n"), ("a.csv", "a\nu,i,view,2020-01-01\n")]
)
def test_a_file_of_garbage_is_an_error_and_not_an_empty_one(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / name).write_text(text)

    with pytest.raises(ArtifactError, match=f"expected a column 'user_id' in {name}, found"):
        run(plan(tmp_path))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS) | st.text("a,\"'\0é\n\r", max_size=5), max_size=6), max_size=30)
)
def test_rows_in_is_kept_plus_rejected_for_any_garbage(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("garbage")
    write_log(tmp_path, "\n".join(",".join(row) for row in rows), "u,i,view,2020-01-01\n")

    spreads, settled = run(ours := plan(tmp_path))

    rejected = sum((Counter(report["rejected"]) for report in (*spreads, *settled)), Counter())
    assert sum(report["rows_in"] for report in spreads) == kept_rows(ours).height + rejected.total()
    listed = ours.folder.read_table("rejected").to_pylist() if ours.folder.exists("rejected") else []
    assert Counter(row["reason"] for row in listed) == rejected


@pytest.mark.parametrize(
    ("count", "num_users", "span"), [(0, 1, 5), (1, 1, 5), (400, 7, 50), (900, 70_000, 30)]
)
def test_rows_are_sorted_by_name_and_time_and_keep_the_logs_order(
    count: int, num_users: int, span: int
) -> None:
    random = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "user": random.integers(0, num_users, count).astype(np.int32),
            "timestamp": random.integers(0, span, count),
            "line": np.arange(count),
        }
    )
    names = pl.Series([f"n{number * 7919 % num_users}" for number in range(num_users)])

    shard = _by_user_and_time(rows, names)

    slow = rows.with_columns(names.gather(rows["user"]).alias("name")).sort("name", "timestamp", "line")
    assert shard.rows["line"].to_list() == slow["line"].to_list()
    assert shard.names.gather(shard.rows["user"]).to_list() == slow["name"].to_list()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_pseudonyms_are_hmac_sha256_for_keys_of_any_length(length: int) -> None:
    key, ids = b"k" * length, ["", "user", "日本", "x" * 300]

    made = pseudonyms(pl.Series(ids), key)

    assert made.to_list() == [hmac.digest(key, raw.encode(), "sha256").hex()[:32] for raw in ids]
