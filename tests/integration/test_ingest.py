import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.artifacts import RunDirectory
from pipelines.config import Config, load_config
from pipelines.ingest import INGEST
from pipelines.stages import run_stage, stage_key

HEADER = "user_id,item_id,behaviour,timestamp\n"


def config(tmp_path: Path, *overrides: str, file: str | None = None) -> Config:
    plain = [
        f"paths.run={tmp_path}/run",
        f"paths.log={tmp_path}/log",
        "rl.slate_length=2",
        "cluster.num_cpus=1",
    ]
    return load_config(file, [*plain, *overrides])


def write(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "log" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def ingest(config: Config) -> dict[str, Any]:
    return dict(run_stage(INGEST, config)["result"])


def behaviours(config: Config) -> pl.DataFrame:
    return pl.read_parquet(f"{config.paths.run}/ingest/behaviours/*.parquet")


def many_rows(num_users: int = 40) -> str:
    times = [f"2020-01-{1 + n % 28:02} 0{n % 7}:00:00" for n in range(num_users * 5)]
    return HEADER + "".join(f"u{n % num_users},i{n % 9},view,{time}\n" for n, time in enumerate(times))


def test_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv.gz"):
        write(tmp_path, name, many_rows() + f"{name},,view,2020-01-01\n")
    files = []
    for workers in (1, 3):
        ours = config(
            tmp_path,
            f"cluster.num_cpus={workers}",
            f"paths.run={tmp_path}/{workers}",
            "ingest.user_shards=4",
            "ingest.max_rejected_fraction=0.6",
        )
        files.append(run_stage(INGEST, ours)["files"])

    one, three = ({name: entry for name, entry in f.items() if name != "config.json"} for f in files)
    assert one == three
    assert set(one) >= {
        "items.parquet",
        "behaviours/shard-00003.parquet",
        "rejected/piece-00001-0000.parquet",
    }
    assert not any(name.startswith("parts") for name in one)


def test_own_format_needs_no_mapping(tmp_path: Path) -> None:
    rows = [
        {
            "user_id": f"u{n}",
            "item_id": f"i{n % 3}",
            "timestamp": f"2020-01-{n + 1:02}T00:00:00Z",
            "session_id": "s",
        }
        for n in range(12)
    ]
    slate = {"request_id": "r0", "position": 0, "propensity": 0.5, "policy_version": "p1"}
    shown = [row | {"behaviour": "impression", **slate} for row in rows]
    seen = [row | {"behaviour": "view", "value": 2.5} for row in rows]
    write(tmp_path, "log.jsonl", "\n".join(json.dumps(row) for row in shown + seen))
    (tmp_path / "items.csv").write_text("item_id,title,price\ni0,zero,1\nnew,fresh,2\n")

    result = ingest(ours := config(tmp_path, f"paths.items={tmp_path}/items.csv"))

    frame = behaviours(ours)
    assert result["behaviours"] == {"impression": 12, "view": 12}
    assert result["sessions"] == {"train": 8, "validation": 2, "test": 2}
    assert frame.row(0, named=True) | {"timestamp": None} == {
        "user_id": "u0",
        "session_id": "u0:s",
        "item_id": "i0",
        "behaviour": "impression",
        "timestamp": None,
        "value": None,
        "request_id": "r0",
        "position": 0,
        "propensity": 0.5,
        "policy_version": "p1",
        "split": "train",
    }
    items = RunDirectory(ours.paths.run).read_table("ingest/items.parquet").to_pydict()
    assert items["item_id"] == ["i0", "i1", "i2", "new"]
    assert items["title"] == ["zero", None, None, "fresh"]


def test_splits_are_by_session_start_and_shards_are_sorted(tmp_path: Path) -> None:
    write(tmp_path, "log.csv", many_rows())

    ingest(ours := config(tmp_path))

    frame = behaviours(ours)
    starts = frame.group_by("session_id").agg(pl.col("timestamp").min(), pl.col("split").unique())
    assert starts["split"].list.len().max() == 1
    bounds = (
        starts.explode("split")
        .group_by("split")
        .agg(pl.col("timestamp").min().alias("first"), pl.col("timestamp").max().alias("last"))
    )
    first = dict(bounds.select("split", "first").iter_rows())
    last = dict(bounds.select("split", "last").iter_rows())
    assert last["train"] < first["validation"] <= last["validation"] < first["test"]
    assert frame.equals(frame.sort("user_id", "timestamp", maintain_order=True))


def test_ingest_is_skipped_until_the_log_changes(tmp_path: Path) -> None:
    write(tmp_path, "log.csv", many_rows())
    ours = config(tmp_path)

    assert [run_stage(INGEST, ours)["skipped"] for _ in range(2)] == [False, True]
    write(tmp_path, "log.csv", many_rows() + "u1,i1,view,2020-01-02 11:00:00\n")
    assert run_stage(INGEST, ours)["skipped"] is False


def test_pseudonyms_need_their_key_and_follow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "log.csv", many_rows())
    ours = config(tmp_path, "ingest.pseudonym_key_env=SHOP_KEY")
    monkeypatch.delenv("SHOP_KEY", raising=False)

    with pytest.raises(ValueError, match="expected a key in the environment variable SHOP_KEY, found none"):
        ingest(ours)
    users = []
    for key in ("one", "two"):
        monkeypatch.setenv("SHOP_KEY", key)
        assert ingest(ours)["num_users"] == 40
        users.append(set(behaviours(ours)["user_id"]))
    assert not users[0] & users[1]


def test_what_a_killed_attempt_left_is_no_part_of_the_result(tmp_path: Path) -> None:
    write(tmp_path, "log.csv", many_rows())
    expected = run_stage(INGEST, config(tmp_path, f"paths.run={tmp_path}/whole"))["files"]
    ours = config(tmp_path)
    run = RunDirectory(ours.paths.run)
    left = run.partial("ingest", stage_key(INGEST, ours, run))
    for name in (
        "parts/file-00000.arrow",
        "parts/file-00000.arrow.tmp",
        "behaviours/shard-00000.parquet.tmp",
    ):
        left.write_bytes(name, b"half of")

    files = run_stage(INGEST, ours)["files"]

    assert {**files, "config.json": None} == {**expected, "config.json": None}


GOOD = "u,i,view,2020-01-01\nv,j,view,2020-02-02\nw,i,view,2020-03-03\nx,j,view,2020-04-04\n"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("", [], r"paths.log: expected behaviours, found no rows in .*log"),
        (HEADER, [], r"paths.log: expected behaviours, found no rows in"),
        (
            GOOD,
            ["ingest.columns.value=price"],
            r"ingest.columns.value: expected a column 'price' in log.csv, found user_id",
        ),
        (
            GOOD.replace("view", "click"),
            [],
            r"expected behaviours of the tasks \(view, cart, purchase\), found click \(4\)",
        ),
        (
            GOOD.replace("2020", "soon"),
            [],
            r"max_rejected_fraction: expected at most 50.0% .* got 100.0% of 4 \(unreadable_time 4\)",
        ),
        ("u,i,view,2020-01-01\nu,j,view,2020-02-02\n", [], r"expected at least 2 users, found 1"),
        (GOOD.replace(",j,", ",i,"), [], r"expected at least 2 items, found 1"),
        (GOOD, ["rl.slate_length=3"], r"rl.slate_length: expected at most the number of items, 2, got 3"),
        (
            GOOD,
            ["ingest.keep=[{column: item_id, matches: '('}]"],
            r"ingest.keep.0.matches: expected a regular expression",
        ),
        (
            GOOD.replace("2020-02-02", "2020-01-01").replace("2020-03-03", "2020-01-01"),
            [],
            r"got train 3, validation 0, test 1",
        ),
    ],
)
def test_a_bad_log_gets_one_line_with_a_remedy(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    write(tmp_path, "log.csv", HEADER * text.startswith("u,") + text)

    with pytest.raises(ValueError, match=message) as caught:
        ingest(config(tmp_path, *overrides))

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "ingest").exists()


def test_a_log_must_be_named_and_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"paths.log: expected a behaviour log .* got none. Set it, as paths.log="
    ):
        ingest(config(tmp_path, "paths.log=null"))
    with pytest.raises(ValueError, match=r"paths.log: expected a file, a folder or a glob, found nothing at"):
        ingest(config(tmp_path))
