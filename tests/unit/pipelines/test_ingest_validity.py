"""Every input row ends in exactly one place, whatever the files hold."""

import gzip
import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import ingest_files, ingest_read
from pipelines.ingest_settle import read_settled
from tests.unit.pipelines.test_ingest_passes import plan, run

HEADER = b"user_id,item_id,behaviour,timestamp,value\n"
FIELDS = [
    b"u",
    b"v ",
    b"",
    b"i",
    b"view",
    b"click",
    b"2020-01-01",
    b"1577836800",
    b"1577836800123",
    b"7",
    b"\xff\xfe",
]
FIELDS += [
    b'"',
    b'"a, b"',
    b'"two\nlines"',
    b"'",
    b"NaN",
    b"\xef\xbb\xbf",
    b"2020-01-01T00:00:00+02:00",
    "日本".encode(),
]
lines = st.lists(st.sampled_from(FIELDS) | st.binary(max_size=3), max_size=7).map(b",".join)
good = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 3)).map(
    lambda row: f"{row[0]},{row[1]},view,2020-01-01 00:00:0{row[2]},".encode()
)
csv_files = st.tuples(st.booleans(), st.lists(lines | good, max_size=25)).map(
    lambda file: (".csv.gz" if file[0] else ".csv", HEADER + b"\n".join(file[1]) + b"\n" * bool(file[1]))
)
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.integers(), max_size=2)
)
objects = st.fixed_dictionaries(
    {
        "user_id": values,
        "item_id": values,
        "behaviour": st.just("view") | values,
        "timestamp": st.just(1577836800) | values,
    }
).map(lambda row: json.dumps(row).encode())
json_files = st.lists(objects | st.binary(max_size=8), max_size=25).map(
    lambda rows: (
        ".jsonl",
        b'{"user_id": 1, "item_id": 1, "behaviour": "view", "timestamp": 1577836800}\n' + b"\n".join(rows),
    )
)


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(csv_files | json_files, min_size=1, max_size=3))
def test_every_row_is_kept_or_rejected_once(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    files: list[tuple[str, bytes]],
    block_bytes: int,
) -> None:
    for module in (ingest_files, ingest_read):
        monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(ingest_read.read_piece, "__defaults__", (None, block_bytes))
    tmp_path = tmp_path_factory.mktemp("garbage")
    (tmp_path / "log").mkdir()
    for number, (suffix, content) in enumerate(files):
        data = gzip.compress(content) if suffix.endswith("gz") else content
        (tmp_path / "log" / f"{number}{suffix}").write_bytes(data)

    # with a limit on items, rows keep their file and line until the limit is applied
    spreads, settled = run(ours := plan(tmp_path, min_item_users=2))

    listed = ours.folder.read_table("rejected").to_pylist() if ours.folder.exists("rejected") else []
    kept = [
        (ours.files[file].name, line)
        for shard in range(ours.num_shards)
        for file, line in read_settled(ours, shard, "settled").rows.select("file", "line").iter_rows()
    ]
    places = Counter(kept) + Counter((row["file"], row["line"]) for row in listed)
    assert set(places.values()) <= {1}
    assert sum(report["rows_in"] for report in spreads) == places.total()
    reasons = sum((Counter(report["rejected"]) for report in (*spreads, *settled)), Counter())
    assert Counter(row["reason"] for row in listed) == reasons
    assert sum(report["num_rows"] for report in settled) == len(kept)
    for (suffix, content), file in zip(files, ours.files, strict=True):
        whole = content.removesuffix(b"\n").split(b"\n")
        told = {line for name, line in places if name == file.name}
        if suffix == ".jsonl":
            assert told == {n for n, text in enumerate(whole, 1) if text.strip(b" \t\r\n\x0b\x0c")}
        elif b'"' not in content:
            assert told == set(range(2, len(whole) + 1))
        else:
            assert told <= set(range(2, len(whole) + 1)) and (2 in told or len(whole) < 2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=20))
def test_ids_of_any_characters_come_through(
    tmp_path_factory: pytest.TempPathFactory, ids: list[tuple[str, str]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("ids")
    (tmp_path / "log").mkdir()
    rows = [
        {"user_id": user, "item_id": item, "behaviour": "view", "timestamp": 1577836800 + n}
        for n, (user, item) in enumerate(ids)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "log" / "a.jsonl").write_text(text, "utf-8", newline="\n")

    run(ours := plan(tmp_path))

    shards = [read_settled(ours, shard, "settled") for shard in range(ours.num_shards)]
    users = {name for s in shards for name in s.names.gather(s.rows["user"].unique())}
    stripped = pl.Series([user for user, _ in ids]).str.strip_chars()
    items = pl.Series([item for _, item in ids]).str.strip_chars()
    nothing = ("", "nan", "null", "none")
    assert users == {
        u
        for u, i in zip(stripped, items, strict=True)
        if u.lower() not in nothing and i.lower() not in nothing
    }


def test_order_of_rows_units_of_time_and_zones_do_not_matter(tmp_path: Path) -> None:
    seconds = [1577836800, 1577836830, 1577840400, 1577836815]
    forms = [
        [str(s) for s in seconds],
        [str(s * 1000) for s in seconds],
        [str(s * 1_000_000) for s in seconds],
        [
            "2020-01-01 01:00:00+01:00",
            "2020-01-01T00:00:30Z",
            "2020-01-01 01:00:00",
            "2019-12-31 19:00:15 -0500",
        ],
    ]
    told = []
    for number, times in enumerate(forms):
        folder = tmp_path / str(number)
        (folder / "log").mkdir(parents=True)
        rows = [f"u,i{n},view,{time}\n" for n, time in enumerate(times)]
        for file, part in (("a.csv", rows[2:]), ("b.csv", rows[:2] + rows[2:3])):
            (folder / "log" / file).write_text(
                "\ufeffuser_id,item_id,behaviour,timestamp\r\n" + "".join(part), "utf-8"
            )
        run(ours := plan(folder, num_shards=1))
        settled = read_settled(ours, 0, "settled")
        told.append((settled.rows["timestamp"].to_list(), settled.sessions.ids.to_list()))
        listed = ours.folder.read_table("rejected").to_pylist()
        assert listed == [{"file": "b.csv", "line": 4, "reason": "duplicate"}]

    assert told[0] == ([s * 1_000_000 for s in sorted(seconds)], ["u@20200101T000000", "u@20200101T010000"])
    assert all(other == told[0] for other in told)
