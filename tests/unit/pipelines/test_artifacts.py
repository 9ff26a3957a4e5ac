"""Run directories: what is being written when a stage is killed is no artifact."""

from pathlib import Path

import pyarrow as pa

from pipelines.artifacts import RunDirectory


def interrupted(tmp_path: Path) -> RunDirectory:
    """A run with one finished table in a partial folder, beside one and a JSON file that were cut off."""
    run = RunDirectory(str(tmp_path))
    partial = run.partial("ingest", "a" * 16)
    partial.write_table("behaviours/shard-00000.parquet", pa.table({"user_id": ["u"]}))
    (
        tmp_path / ".partial" / f"ingest-{'a' * 16}" / "behaviours" / "shard-00001.parquet.27398.tmp"
    ).write_bytes(b"PAR1")
    (tmp_path / ".partial" / f"ingest-{'a' * 16}" / "report.json.tmp").write_bytes(b"{")
    return run


def test_unfinished_files_are_neither_listed_nor_published(tmp_path: Path) -> None:
    run = interrupted(tmp_path)
    partial = run.partial("ingest", "a" * 16)
    assert partial.files() == ["behaviours/shard-00000.parquet"]

    manifest = run.publish("ingest", partial, {"result": {}})

    assert list(manifest["files"]) == ["behaviours/shard-00000.parquet"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_delete_unfinished_leaves_what_is_whole(tmp_path: Path) -> None:
    run = interrupted(tmp_path)

    run.delete_unfinished()

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["shard-00000.parquet"]
