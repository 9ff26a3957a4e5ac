"""New files are added to a run: nothing touched, nothing counted twice, sessions joined across the border."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.artifacts import Folder, RunDirectory
from pipelines.config import Config, load_config
from pipelines.ingest import INGEST
from pipelines.stages import run_stage

HEADER = "user_id,item_id,behaviour,timestamp,session_id\n"


def line(user: int, item: int, minute: int, session: str = "") -> str:
    day, rest = divmod(minute, 24 * 60)
    return f"u{user},i{item},view,2020-01-{day + 1:02} {rest // 60:02}:{rest % 60:02}:00,{session}\n"


FIRST = "".join(line(n % 9, n % 5, 7 * n) for n in range(300)) + line(1, 1, 2100, "named")
REPEATED = "".join(FIRST.splitlines(keepends=True)[-6:])
SECOND = "".join(line(n % 11, n % 7, 7 * n) for n in range(300, 450)) + line(1, 2, 2900, "named")


def config(tmp_path: Path, log: str, run: str = "run", *extra: str) -> Config:
    plain = [f"paths.run={tmp_path}/{run}", f"paths.log={tmp_path}/{log}", "rl.slate_length=2"]
    return load_config(None, [*plain, "ingest.user_shards=3", "cluster.num_cpus=1", *extra])


def write(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(HEADER + text)


def ingest(config: Config) -> dict[str, Any]:
    return run_stage(INGEST, config)


def rows(config: Config) -> pl.DataFrame:
    table = RunDirectory(config.paths.run).read_table("ingest/behaviours")
    return pl.DataFrame(table).sort("user_id", "timestamp", "item_id")


def test_two_ingests_are_one_in_two_parts(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", FIRST)
    write(tmp_path, "b.csv", SECOND + REPEATED)
    ingest(config(tmp_path, "a.csv"))
    before = {p: p.read_bytes() for p in (tmp_path / "run/ingest").rglob("shard-*.parquet")}

    added = ingest(ours := config(tmp_path, "b.csv"))["result"]

    write(tmp_path, "both/a.csv", FIRST)
    write(tmp_path, "both/b.csv", SECOND + REPEATED)
    whole = ingest(whole_config := config(tmp_path, "both", "whole"))["result"]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert rows(ours).drop("split").equals(rows(whole_config).drop("split"))
    for name in (
        "rows_in",
        "rows_kept",
        "rows_rejected",
        "num_users",
        "num_items",
        "num_sessions",
        "behaviours",
    ):
        assert added[name] == whole[name], name
    splits = rows(ours).group_by("session_id").agg(pl.col("split").n_unique())
    assert splits["split"].max() == 1
    assert added["rows_rejected"]["duplicate"] > 0
    assert rows(ours).filter(session_id="u1:named").height == 2


def test_files_that_a_run_holds_are_left_out_wherever_they_lie(tmp_path: Path) -> None:
    write(tmp_path, "log/a.csv", FIRST)
    first = ingest(config(tmp_path, "log"))
    (tmp_path / "log/a.csv").rename(tmp_path / "log/renamed.csv")
    assert ingest(config(tmp_path, "log"))["skipped"]
    write(tmp_path, "log/b.csv", SECOND)

    second = ingest(config(tmp_path, "log"))

    assert second["result"]["rows_in"] == first["result"]["rows_in"] + SECOND.count("\n")
    assert [ingest(config(tmp_path, log))["skipped"] for log in ("log", "log/b.csv", "log/renamed.csv")] == [
        True
    ] * 3


def test_late_rows_join_the_session_that_is_there_and_items_keep_their_place(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", FIRST)
    late = line(0, 9, 7 * 9 + 3) + line(0, 0, 7 * 9 - 2)  # user 0 acted at minute 63
    write(tmp_path, "b.csv", late)
    ingest(ours := config(tmp_path, "a.csv"))
    old, items = rows(ours), RunDirectory(ours.paths.run).read_table("ingest/items.parquet")

    ingest(config(tmp_path, "b.csv"))

    new = rows(ours).join(old, on=old.columns, how="anti", nulls_equal=True)
    session = old.filter(pl.col("user_id") == "u0").sort("timestamp")["session_id"][1]
    assert new["session_id"].to_list() == [session, session]
    now = RunDirectory(ours.paths.run).read_table("ingest/items.parquet")
    assert now.slice(0, items.num_rows).equals(items)
    assert now["item_id"].to_pylist()[items.num_rows :] == ["i9"]


def test_files_with_nothing_new_add_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", FIRST)
    write(tmp_path, "again.csv", REPEATED)
    write(tmp_path, "empty.csv", "")
    first = ingest(ours := config(tmp_path, "a.csv"))["result"]
    old = rows(ours)

    again = ingest(config(tmp_path, "again.csv"))["result"]
    empty = ingest(config(tmp_path, "empty.csv"))["result"]

    assert again["rows_rejected"] == {"duplicate": REPEATED.count("\n")}
    assert again["rows_kept"] == empty["rows_kept"] == first["rows_kept"]
    assert rows(ours).equals(old)
    with pytest.raises(ValueError, match=r"max_rejected_fraction: .* got 100.0% of 3 \(missing_item 3\)"):
        write(tmp_path, "bad.csv", "u,,view,2020-01-01,\n" * 3)
        ingest(config(tmp_path, "bad.csv"))


def test_another_setting_or_a_changed_file_wants_the_whole_log(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", FIRST)
    write(tmp_path, "b.csv", SECOND)
    ingest(config(tmp_path, "a.csv"))

    with pytest.raises(
        ValueError, match=r"paths.log: expected all 1 files of the run's log, .* got none for .*a.csv"
    ):
        ingest(config(tmp_path, "b.csv", "run", "ingest.session_gap_s=60"))
    write(tmp_path, "a.csv", FIRST + line(1, 1, 5000))
    assert ingest(config(tmp_path, "a.csv"))["result"]["rows_in"] == FIRST.count("\n") + 1


class CutError(Exception):
    """The end of the process, as the test has it."""


def test_an_addition_cut_off_at_any_step_of_publishing_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = "ingest.user_shards=1"
    write(tmp_path, "a.csv", FIRST)
    write(tmp_path, "b.csv", SECOND)
    ingest(config(tmp_path, "a.csv", "first", one))
    shutil.copytree(tmp_path / "first", tmp_path / "calm")
    calm = ingest(config(tmp_path, "b.csv", "calm", one))["files"]
    join, cuts = Folder.join, 0
    for last in range(0, 1000, 4):
        shutil.copytree(tmp_path / "first", tmp_path / "run")
        steps = iter(range(last))

        def cut(folder: Folder, name: str, steps: Iterator[int] = steps) -> str:
            if next(steps, None) is None:
                raise CutError
            return join(folder, name)

        publish = RunDirectory.publish

        def cut_publish(*arguments: Any, publish: Any = publish, cut: Any = cut, **options: Any) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(Folder, "join", cut)
                return publish(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "publish", cut_publish)
            try:
                ingest(config(tmp_path, "b.csv", "run", one))
            except CutError:
                cuts += 1

        again = ingest(config(tmp_path, "b.csv", "run", one))["files"]

        assert {**again, "config.json": None} == {**calm, "config.json": None}
        run = RunDirectory(str(tmp_path / "run"))
        assert all(run.sha256(f"ingest/{name}") == entry["sha256"] for name, entry in again.items())
        assert set(run.folder("ingest").files()) == {*again, "manifest.json"}
        assert not list((tmp_path / "run/.partial").glob("*"))
        shutil.rmtree(tmp_path / "run")
        if cuts <= last // 4:
            break
    assert cuts > 5
