import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.columns import PLACE_COLUMN, Entries, Format
from pipelines import ingest_files, ingest_read
from pipelines.artifacts import ArtifactError
from pipelines.ingest_files import cut, find_files, survey
from pipelines.ingest_read import column_names, read_piece


def read(
    path: Path, columns: list[str], table: Format | None = None, entries: Entries | None = None
) -> list[tuple[object, ...]]:
    """All rows of a file, piece by piece."""
    table = table or Format()
    (file,) = find_files(str(path), "paths.log", table)
    pieces = cut([file], survey([file]), table)
    frames = [rows for piece in pieces for rows in read_piece(file, piece, table, columns, entries)]
    return pl.concat(frames).rows() if frames else []


@pytest.fixture(params=["fast", "careful"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read text."""
    if request.param == "careful":

        def broken(*arguments: object) -> None:
            raise ingest_read.BrokenRowsError

        monkeypatch.setattr(ingest_read, "_fast_csv", broken)
        monkeypatch.setattr(ingest_read, "_fast_json", broken)
    return str(request.param)


def test_csv_is_read_by_name_with_line_numbers(tmp_path: Path, way: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b,c\r\n1,,3\r\n\r\n4,"say ""x"",\n y",6\r\n7\r\n')

    assert read(path, ["c", "b"]) == [
        (2, "3", None),
        (3, None, None),
        (4, "6", 'say "x",\n y'),
        (6, None, None),
    ]


def test_broken_csv_records_are_named_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    lines = [b"a,b", b"1,2", b"3,4,5", b'6,"7', b"8,\xff", b'9,"two', b'lines"', b"10,11", b""]
    path.write_bytes(gzip.compress(b"\n".join(lines)))

    rows = read(path, ["a", "b"])

    assert [row for row in rows if row[1] is None] == [(3, None, None), (4, None, None), (5, None, None)]
    assert {(2, "1", "2"), (6, "9", "two\nlines"), (8, "10", "11")} <= set(rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(max_size=12).map(lambda b: b.replace(b'"', b"").replace(b"\n", b"").replace(b"\r", b""))
    )
)
def test_garbage_gives_one_row_a_line_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "log.csv"
    path.write_bytes(b"a,b\n" + b"".join(line + b"\n" for line in lines))

    assert [row[0] for row in read(path, ["b", "a"])] == list(range(2, len(lines) + 2))


ROWS = [(n, f"x; {n}" + "\n" * (n % 3 == 0), n * "é") for n in range(9)]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_pieces_and_streams_are_the_file_row_for_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = "a;b;c\n" + "".join(f'{a};"{b}";{c}\n' for a, b, c in ROWS)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    table = Format(separator=";")
    whole = read(path, ["a", "b", "c"], table)

    ingest_files._SEEN.clear()
    for module in (ingest_files, ingest_read):
        monkeypatch.setattr(module, "BLOCK_BYTES", 40)
    files = find_files(str(path), "paths.log", table)
    pieces = cut(files, survey(files), table)

    assert len(pieces) > 2 or name.endswith("gz")
    assert read(path, ["a", "b", "c"], table) == whole
    assert [row[1:3] for row in whole] == [(str(a), b) for a, b, _ in ROWS]
    assert [row[0] for row in whole] == [2, 4, 5, 6, 8, 9, 10, 12, 13]


def test_files_without_a_header_with_long_separators_and_in_other_encodings(tmp_path: Path, way: str) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes('1::Les Mis\xe9rables::Drama\n2::"12"::\n'.encode("latin-1"))
    table = Format(
        kind="csv", separator="::", header=["id", "title", "kind"], quotes=False, encoding="latin-1"
    )

    assert read(path, ["title", "id"], table) == [(1, "Les Misérables", "1"), (2, '"12"', "2")]
    utf16 = tmp_path / "log.csv"
    utf16.write_text("a,b\n1,ß\n", encoding="utf-16")
    assert read(utf16, ["b"], Format(encoding="utf-16")) == [(2, "ß")]


def test_entries_of_a_list_become_rows(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,shown\nu,N1-0 N2-1\nv,\nw,odd\n")
    entries = Entries(column="shown", pattern=r"(?P<item>\w+)-(?P<clicked>[01])")

    rows = read(path, ["user", "shown"], entries=entries)

    assert [(r[0], r[1], *r[3:]) for r in rows] == [
        (2, "u", "0", "N1", "0"),
        (2, "u", "1", "N2", "1"),
        (3, "v", None, None, None),
        (4, "w", "0", None, None),
    ]
    assert PLACE_COLUMN == "@place"


def test_names_of_folders_are_columns(tmp_path: Path) -> None:
    for day, rows in (("2020-01-01", "a\n1\n"), ("__HIVE_DEFAULT_PARTITION__", "a\n2\n")):
        (tmp_path / f"day={day}").mkdir()
        (tmp_path / f"day={day}" / "x.csv").write_text(rows)
    files = find_files(str(tmp_path), "paths.log", Format())

    frames = [
        rows
        for n, file in enumerate(files)
        for piece in cut([file], survey([file]), Format())
        for rows in read_piece(file, piece, Format(), ["a", "day"])
    ]

    assert column_names(files[0], Format()) == ["a", "day"]
    assert sorted(pl.concat(frames).rows()) == [(2, "1", "2020-01-01"), (2, "2", None)]


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


def test_both_ways_read_json_alike(tmp_path: Path, way: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1.0, "b": "1.0"}\n{"a": [1, "x"], "b": 12345678901}\n{"b": null, "a": false}\n')

    assert read(path, ["a", "b"]) == [(1, "1", "1.0"), (2, '[1, "x"]', "12345678901"), (3, "false", None)]


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
        return [file.name for file in find_files(where, "paths.log", Format())]

    assert names(str(tmp_path)) == names(f"file://{tmp_path}") == ["a.csv", "b.csv", "deep/er/c.jsonl"]
    assert names(f"{tmp_path}/*.csv") == names(f"{tmp_path}/[ab].csv") == ["a.csv", "b.csv"]
    assert names(f"{tmp_path}/**/*.jsonl") == ["deep/er/c.jsonl"]


def test_missing_empty_and_strange_places_are_errors(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"paths.log: expected a file, a folder or a glob, found nothing at"
    ):
        find_files(str(tmp_path / "none.csv"), "paths.log", Format())
    with pytest.raises(ArtifactError, match=r"expected files \(.csv, .* found none at"):
        find_files(f"{tmp_path}/*.csv", "paths.log", Format())
    (tmp_path / "log.xlsx").write_text("x")
    with pytest.raises(ArtifactError, match=r"expected files that end in .* found log.xlsx"):
        find_files(str(tmp_path), "paths.log", Format())


@pytest.mark.parametrize("name", ["log.parquet", "log.csv.gz"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"no such thing")
    (file,) = find_files(str(path), "paths.log", Format())

    with pytest.raises(ArtifactError, match=rf"{name}: expected readable"):
        column_names(file, Format())


def test_columns_of_json_lines_are_those_of_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ({"a": 1}, {"b": 1})))
    (file,) = find_files(str(path), "paths.log", Format())

    assert column_names(file, Format()) == ["a", "b"]
