"""The same work as ``slatewise ingest``, in plain polars and in duckdb.

Both parse, judge each row with a reason, drop duplicates, make HMAC pseudonyms, sort by user and time, find sessions by
pause, split by time, and write the same columns and types: Parquet, zstd level 1, repeating texts as dictionaries; and
the rejected rows with file, line and reason. ``python -m tests.benchmarks.ingest_rivals NAME KIND LOG OUT THREADS``
prints a JSON object: seconds, imports and the process's start not counted, and the counts.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process imports one rival alone
    import polars as pl

KEY = b"benchmark" * 4
GAP_S = 1800
MAX_PER_MINUTE = 600
COLUMNS = ["event_time", "event_type", "product_id", "price", "user_id"]
BEHAVIOURS = ["view", "cart", "purchase"]
SPLITS = ["train", "validation", "test"]
EARLIEST, LATEST = "1990-01-01", "2100-01-01"


def polars_ingest(kind: str, log: Path, out: Path, engine: str) -> dict[str, int]:
    import polars as pl
    import polars_hash as plh

    frame = _judged(kind, log).collect(engine=engine)  # type: ignore[call-overload]
    rejected = frame.filter(pl.col("reason").is_not_null()).select("file", "line", "reason")
    valid = frame.filter(pl.col("reason").is_null()).drop("reason", "priced")
    del frame
    names = (
        valid.select(pl.col("user_id").unique())
        .with_columns(plh.col("user_id").chash.hmac_sha256(key=KEY.decode()).str.head(32).alias("name"))
        .with_row_index("user")
    )
    valid = valid.join(names.select("user_id", "user"), on="user_id", maintain_order="left").drop("user_id")
    valid = valid.sort("user", "timestamp", maintain_order=True)
    kept, repeated = _distinct(valid)
    del valid
    pause = pl.col("timestamp").diff() > pl.duration(seconds=GAP_S)
    starts = ((pl.col("user") != pl.col("user").shift(1)) | pause).fill_null(True)
    kept = kept.with_columns((starts.cum_sum() - 1).cast(pl.Int32).alias("session"))
    sessions = _sessions(kept, names)
    result = kept.select(
        names["name"].gather(kept["user"]).alias("user_id"),
        sessions["session_id"].gather(kept["session"]),
        "item_id",
        pl.col("behaviour"),
        "timestamp",
        "value",
        sessions["split"].gather(kept["session"]),
    )
    result.write_parquet(
        out / "behaviours.parquet", compression="zstd", compression_level=1, statistics=False
    )
    all_rejected = pl.concat([rejected, repeated]).sort("file", "line")
    all_rejected.with_columns(pl.lit(str(log)).alias("folder")).write_parquet(
        out / "rejected.parquet", compression="zstd", compression_level=1
    )
    return {"rows_kept": result.height, "rows_rejected": all_rejected.height, "num_sessions": sessions.height}


def _judged(kind: str, log: Path) -> "pl.LazyFrame":
    """The log's rows as they will be written, with the reason against each that has one."""
    import polars as pl

    def clean(name: str) -> pl.Expr:
        stripped = pl.col(name).str.strip_chars()
        return pl.when(~stripped.str.contains("^(?i:nan|null|none|)$")).then(stripped)

    moment = pl.col("event_time").str.to_datetime("%Y-%m-%d %H:%M:%S UTC", strict=False, time_unit="us")
    text = pl.concat([_scan(kind, path, number) for number, path in enumerate(sorted(log.iterdir()))])
    return text.select(
        "file",
        "line",
        clean("user_id").alias("user_id"),
        clean("product_id").alias("item_id"),
        pl.col("event_type").cast(pl.Enum(BEHAVIOURS), strict=False).alias("behaviour"),
        moment.dt.replace_time_zone("UTC").alias("timestamp"),
        pl.col("price").cast(pl.Float32, strict=False).alias("value"),
        pl.col("price").is_not_null().alias("priced"),
    ).with_columns(
        pl.when(pl.col("user_id").is_null())
        .then(pl.lit("missing_user"))
        .when(pl.col("item_id").is_null())
        .then(pl.lit("missing_item"))
        .when(pl.col("behaviour").is_null())
        .then(pl.lit("unknown_behaviour"))
        .when(pl.col("timestamp").is_null())
        .then(pl.lit("unreadable_time"))
        .when(~pl.col("timestamp").dt.year().is_between(1990, 2100))
        .then(pl.lit("absurd_time"))
        .when(pl.col("priced") & pl.col("value").is_null())
        .then(pl.lit("unreadable_number"))
        .alias("reason")
    )


def _scan(kind: str, path: Path, number: int) -> "pl.LazyFrame":
    """A file's columns as texts, with file and line."""
    import polars as pl

    if kind == "parquet":
        frame = pl.scan_parquet(path, row_index_name="line", row_index_offset=1)
    elif kind == "jsonl":
        schema = dict.fromkeys(COLUMNS, pl.String)
        frame = pl.scan_ndjson(path, schema=schema, row_index_name="line", row_index_offset=1)
    else:
        frame = pl.scan_csv(path, infer_schema=False, row_index_name="line", row_index_offset=2)
    texts = [pl.col(c) if c == "price" else pl.col(c).cast(pl.String) for c in COLUMNS]
    return frame.select("line", *texts).with_columns(pl.lit(number, pl.UInt16).alias("file"))


def _distinct(valid: "pl.DataFrame") -> "tuple[pl.DataFrame, pl.DataFrame]":
    """Rows that say something new, and those that repeat one. Looks for inhuman rates, as ingest does."""
    import polars as pl

    # Only rows that share user and time with a neighbour can be repeats: the test of whole rows is of few.
    near = pl.all_horizontal([pl.col(c) == pl.col(c).shift(1) for c in ("user", "timestamp")])
    near = near.fill_null(False)
    crowd = valid.with_row_index("row").filter(near | near.shift(-1, fill_value=False))
    key = pl.struct("user", "timestamp", "item_id", "behaviour", "value")
    repeated = crowd.filter(~key.is_first_distinct())
    kept = valid.with_row_index("row").filter(~pl.col("row").is_in(repeated["row"].implode()))
    kept = kept.drop("row", "file", "line")
    ahead = pl.col("timestamp") - pl.col("timestamp").shift(MAX_PER_MINUTE)
    fast = (pl.col("user") == pl.col("user").shift(MAX_PER_MINUTE)) & (ahead < pl.duration(minutes=1))
    assert not kept.select(fast.any()).item(), "the made-up log has no such users"
    return kept, repeated.select("file", "line", pl.lit("duplicate").alias("reason"))


def _sessions(kept: "pl.DataFrame", names: "pl.DataFrame") -> "pl.DataFrame":
    """Each session's id and split."""
    import polars as pl

    sessions = kept.group_by("session", maintain_order=True).agg(
        pl.col("user").first(), pl.col("timestamp").first()
    )
    cuts = sessions["timestamp"].sort()
    at = [cuts[int(len(cuts) * share)] for share in (0.7, 0.8)]
    split = (sessions["timestamp"] >= at[0]).cast(pl.UInt8) + (sessions["timestamp"] >= at[1]).cast(pl.UInt8)
    stamp = sessions["timestamp"].dt.strftime("@%Y%m%dT%H%M%S")
    return sessions.with_columns(
        (names["name"].gather(sessions["user"]) + stamp).alias("session_id"),
        split.replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.Enum(SPLITS)).alias("split"),
    )


DUCKDB_READ = {
    "csv": "read_csv('{}', all_varchar=true, header=true, filename=true)",
    "csv.gz": "read_csv('{}', all_varchar=true, header=true, filename=true)",
    "jsonl": "read_json('{}', format='newline_delimited', filename=true, columns={{event_time: 'VARCHAR', "
    "event_type: 'VARCHAR', product_id: 'VARCHAR', price: 'VARCHAR', user_id: 'VARCHAR'}})",
    "parquet": "read_parquet('{}', filename=true, file_row_number=true)",
}


def duckdb_ingest(kind: str, log: Path, out: Path, threads: int) -> dict[str, int]:
    import duckdb

    db = duckdb.connect(config={"threads": threads})
    db.execute("set preserve_insertion_order=true")
    source = DUCKDB_READ[kind].format(f"{log}/*")
    db.execute(f"""
        create table judged as
        with text as (
            select filename as file, row_number() over () as line,
                nullif(trim(user_id::varchar), '') as user_id, nullif(trim(product_id::varchar), '') as item_id,
                event_type as behaviour,
                try_strptime(event_time, '%Y-%m-%d %H:%M:%S UTC') as ts, price is not null as priced,
                try_cast(price as float) as value
            from {source})
        select *, case when user_id is null or lower(user_id) in ('nan', 'null', 'none') then 'missing_user'
            when item_id is null or lower(item_id) in ('nan', 'null', 'none') then 'missing_item'
            when behaviour not in ('view', 'cart', 'purchase') or behaviour is null then 'unknown_behaviour'
            when ts is null then 'unreadable_time'
            when ts < '{EARLIEST}' or ts > '{LATEST}' then 'absurd_time'
            when priced and value is null then 'unreadable_number' end as reason
        from text""")
    inner = bytes(byte ^ 0x36 for byte in KEY.ljust(64, b"\0")).hex()
    outer = bytes(byte ^ 0x5C for byte in KEY.ljust(64, b"\0")).hex()
    db.execute(f"""
        create table names as select user_id, substr(sha256(unhex('{outer}') ||
            unhex(sha256(unhex('{inner}') || encode(user_id)))), 1, 32) as name
        from (select distinct user_id from judged where reason is null)""")
    db.execute("""
        create table marked as
        select name, item_id, behaviour, ts, value, file, line,
            row_number() over (partition by name, ts, item_id, behaviour, value order by file, line) > 1 as repeated
        from judged join names using (user_id) where reason is null""")
    db.execute(f"""
        create table kept as
        select *, sum(starts) over (partition by name order by ts, line rows unbounded preceding) as number
        from (select *, coalesce(epoch(ts) - epoch(lag(ts) over (partition by name order by ts, line)) > {GAP_S},
            true)::int as starts from marked where not repeated)""")
    fast = db.execute(f"""
        select count(*) from (
            select ts - lag(ts, {MAX_PER_MINUTE}) over (partition by name order by ts) as ahead from kept)
        where ahead < interval 1 minute""")
    assert fast.fetchall() == [(0,)], "the made-up log has no such users"
    db.execute("""
        create table sessions as select name, number, min(ts) as start from kept group by name, number""")
    cuts = db.execute("select quantile_disc(start, [0.7, 0.8]) from sessions").fetchall()[0][0]
    db.execute(f"""
        copy (select name as user_id, name || strftime(start, '@%Y%m%dT%H%M%S') as session_id, item_id, behaviour,
            ts::timestamptz as timestamp, value,
            case when start >= '{cuts[1]}' then 'test' when start >= '{cuts[0]}' then 'validation' else 'train' end
                as split
        from kept join sessions using (name, number) order by name, ts, line)
        to '{out}/behaviours.parquet' (format parquet, compression zstd, compression_level 1)""")
    db.execute(f"""
        copy (select file, line, reason from judged where reason is not null
            union all select file, line, 'duplicate' from marked where repeated order by file, line)
        to '{out}/rejected.parquet' (format parquet, compression zstd, compression_level 1)""")
    counts = [
        db.execute(f"select count(*) from {query}").fetchall()[0][0]
        for query in ("kept", "judged where reason is not null", "marked where repeated", "sessions")
    ]
    return {"rows_kept": counts[0], "rows_rejected": counts[1] + counts[2], "num_sessions": counts[3]}


def main(name: str, kind: str, log: str, out: str, threads: str) -> None:
    if name.startswith("polars"):
        os.environ["POLARS_MAX_THREADS"] = threads
        import polars  # noqa: F401
    else:
        import duckdb  # noqa: F401
    Path(out).mkdir(parents=True)
    start = time.perf_counter()
    if name == "duckdb":
        counts = duckdb_ingest(kind, Path(log), Path(out), int(threads))
    else:
        engine = "streaming" if name == "polars-streaming" else "in-memory"
        counts = polars_ingest(kind, Path(log), Path(out), engine)
    print(json.dumps({"seconds": time.perf_counter() - start, **counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
