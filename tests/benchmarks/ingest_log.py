"""A made-up shop log in REES46's columns: sessions through a month, with flaws and repeats in known shares."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl

NUM_FILES = 20
NUM_ITEMS = 60_000
START_S, SPAN_S = 1_569_888_000, 31 * 86_400
KINDS = {"csv": ".csv", "csv.gz": ".csv.gz", "jsonl": ".jsonl", "parquet": ".parquet"}


def write_log(folder: Path, num_rows: int, kind: str = "csv", seed: int = 0) -> None:
    """``NUM_FILES`` files of equal numbers of rows, in the order of time; 10 rows a user, 4 a session."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    each = num_rows // NUM_FILES
    for number in range(NUM_FILES):
        frame = _rows(rng, number, each, num_rows // 10)
        path = folder / f"part-{number:03d}{KINDS[kind]}"
        if kind == "parquet":
            frame.with_columns(
                pl.col("price").cast(pl.Float64), pl.col("user_id").cast(pl.Int64)
            ).write_parquet(path)
        elif kind == "jsonl":
            frame.with_columns(
                pl.col("price").cast(pl.Float64), pl.col("user_id").cast(pl.Int64)
            ).write_ndjson(path)
        elif kind == "csv.gz":
            path.write_bytes(gzip.compress(frame.write_csv().encode(), 6))
        else:
            frame.write_csv(path)


def _rows(rng: np.random.Generator, number: int, count: int, num_users: int) -> pl.DataFrame:
    start, width = START_S + SPAN_S * number // NUM_FILES, SPAN_S // NUM_FILES
    num_sessions = count // 4 + 1
    session_user = rng.integers(0, num_users, num_sessions)
    session_start = np.sort(rng.integers(start, start + width, num_sessions))
    session = rng.integers(0, num_sessions, count)
    moment = session_start[session] + rng.integers(0, 900, count)
    order = np.argsort(moment, kind="stable")  # a log is in the order of time: sessions run side by side
    session, moment = session[order], moment[order]
    item = np.minimum((rng.pareto(0.9, count) * 300).astype(np.int64), NUM_ITEMS - 1)
    flaw = rng.random(count)
    words = np.array(["view", "cart", "purchase", "remove_from_cart"])
    frame = pl.DataFrame(
        {
            "time": moment,
            "event_type": rng.choice(words, count, p=[0.93, 0.04, 0.025, 0.005]),
            "item": item,
            "user": session_user[session],
            "session": session,
            "flaw": flaw,
        }
    )
    made = frame.select(
        pl.when(pl.col("flaw") < 0.003)
        .then(pl.lit("soon"))
        .otherwise(pl.from_epoch("time").dt.strftime("%Y-%m-%d %H:%M:%S UTC"))
        .alias("event_time"),
        "event_type",
        (1_000_000 + pl.col("item") * 37).cast(pl.String).alias("product_id"),
        (2_053_013_550_000_000_000 + pl.col("item") % 600 * 8_912_896).cast(pl.String).alias("category_id"),
        pl.when(pl.col("item") % 3 > 0)
        .then(pl.format("electronics.device{}", pl.col("item") % 120))
        .alias("category_code"),
        pl.when(pl.col("item") % 7 > 0).then(pl.format("brand{}", pl.col("item") % 900)).alias("brand"),
        ((pl.col("item") % 5_000) / 7 + 1).round(2).cast(pl.String).alias("price"),
        pl.when(pl.col("flaw").is_between(0.003, 0.008))
        .then(None)
        .otherwise((512_000_000 + pl.col("user") * 11).cast(pl.String))
        .alias("user_id"),
        pl.format("{}-{}-4d3b-30da-acad6bfdb", pl.lit(number), pl.col("session")).alias("user_session"),
    )
    repeats = count // 200
    return pl.concat([made[: count - repeats], made[rng.integers(0, count - repeats, repeats)]])
