import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.artifacts import ArtifactError
from pipelines.ingest_files import LINE, BrokenRecordsError, LogFile, column_names, find_files, read_batches


def read(
    path: Path, columns: list[str], *, careful: bool = False, separator: str = ","
) -> list[tuple[object, ...]]:
    (file,) = find_files(str(path), "paths.log")
    frames = list(read_batches(file, path, columns, separator, careful=careful))
    rows = pl.concat(frames) if frames else pl.DataFrame(schema=[LINE, *columns])
    assert rows.columns == [LINE, *columns]
    return rows.rows()


@pytest.mark.parametrize("careful", [False, True])
def test_csv_is_read_by_name_with_line_numbers(tmp_path: Path, careful: bool) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b,c\r\n1,,3\r\n\r\n4,"say ""x"", y",6\r\n7\r\n')

    assert read(path, ["c", "b"], careful=careful) == [
        (2, "3", None),
        (3, None, None),
        (4, "6", 'say "x", y'),
        (5, None, None),
    ]


def test_broken_csv_records_are_named_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    lines = [b"a,b", b"1,2", b"3,4,5", b'6,"7', b"8,\xff", b'9,"two', b'lines"', b"10,11", b""]
    path.write_bytes(gzip.compress(b"\n".join(lines)))

    with pytest.raises(BrokenRecordsError):
        read(path, ["a", "b"])
    rows = read(path, ["a", "b"], careful=True)

    assert [row for row in rows if row[1] is None] == [(3, None, None), (4, None, None), (5, None, None)]
    assert {(2, "1", "2"), (6, "9", "two\nlines"), (8, "10", "11")} <= set(rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(max_size=12).map(lambda b: b.replace(b'"', b"").replace(b"\n", b"").replace(b"\r", b""))
    )
)
def test_careful_reading_gives_one_row_a_line_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "log.csv"
    path.write_bytes(b"a,b\n" + b"".join(line + b"\n" for line in lines))

    assert [row[0] for row in read(path, ["b", "a"], careful=True)] == list(range(2, len(lines) + 2))


def test_fast_and_careful_reading_agree_on_sound_files(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a;b\n" + "".join(f'{n};"x; {n}"\n' for n in range(1000)), "utf-8")

    assert read(path, ["a", "b"], separator=";") == read(path, ["a", "b"], careful=True, separator=";")


def test_json_lines_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1, "b": "x"}\n\n{"a": 2.5}\n[1]\n{"a": \n{"b": {"c": [1]}, "a": true}\n\xff\n')

    assert read(path, ["a", "b"]) == [
        (1, "1", "x"),
        (3, "2.5", None),
        (4, None, None),
        (5, None, None),
        (6, "true", '{"c": [1]}'),
        (7, None, None),
    ]


def test_parquet_numbers_become_text_and_times_stay(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame({"n": [7, None], "t": [0, 1], "c": ["x", "y"]}).with_columns(
        pl.col("t").cast(pl.Datetime("ms", "UTC")), pl.col("c").cast(pl.Categorical)
    )
    frame.write_parquet(path)

    assert read(path, ["c", "n", "t"]) == [(1, "x", "7", frame["t"][0]), (2, "y", None, frame["t"][1])]


def test_files_are_found_by_folder_glob_and_uri_in_name_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "deep/er/c.jsonl", "_tmp/d.csv", ".e.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")

    def names(where: str) -> list[str]:
        return [file.name for file in find_files(where, "paths.log")]

    assert names(str(tmp_path)) == names(f"file://{tmp_path}") == ["a.csv", "b.csv", "deep/er/c.jsonl"]
    assert names(f"{tmp_path}/*.csv") == names(f"{tmp_path}/[ab].csv") == ["a.csv", "b.csv"]
    assert names(f"{tmp_path}/**/*.jsonl") == ["deep/er/c.jsonl"]


def test_missing_empty_and_strange_places_are_errors(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"paths.log: expected a file, a folder or a glob, found nothing at"
    ):
        find_files(str(tmp_path / "none.csv"), "paths.log")
    with pytest.raises(ArtifactError, match=r"expected files \(.csv, .* found none at"):
        find_files(f"{tmp_path}/*.csv", "paths.log")
    (tmp_path / "log.xlsx").write_text("x")
    with pytest.raises(ArtifactError, match=r"expected files that end in .* found log.xlsx"):
        find_files(str(tmp_path), "paths.log")


@pytest.mark.parametrize("name", ["log.parquet", "log.csv.gz"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"no such thing")
    (file,) = find_files(str(path), "paths.log")

    with pytest.raises(ArtifactError, match=rf"{name}: expected readable"):
        column_names(file, path, ",")


def test_columns_of_json_lines_are_those_of_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ({"a": 1}, {"b": 1})))
    (file,) = find_files(str(path), "paths.log")

    assert column_names(file, path, ",") == ["a", "b"]


def test_a_file_from_elsewhere_is_copied_for_the_time_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a\n1\n")
    remote = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    file = LogFile(remote, "log.csv", "log.csv", 4)

    with file.local() as path:
        assert path != tmp_path / "log.csv"
        assert path.read_text() == "a\n1\n"
    assert not path.exists()
