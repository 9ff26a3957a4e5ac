"""Which rows of a log are valid behaviours, and why the others are not."""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from encoders.columns import IMPRESSION, Filter, IngestConfig
from encoders.times import TYPE, parse_times

REASONS = (
    "unreadable_row",
    "filtered",
    "missing_user",
    "missing_item",
    "unknown_behaviour",
    "unreadable_time",
    "absurd_time",
    "unreadable_number",
    "duplicate",
    "inhuman_rate",
)
MISSING_WORDS = ("", "nan", "null", "none")  # what exporters write for no user and no item
EARLIEST_US = 631_152_000_000_000  # 1990-01-01: before any log of a shop or a player
CLOCK_SKEW_US = 86_400_000_000  # a day: clocks ahead, and local times taken for UTC

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String,
    "given_session": pl.String,
    "item_id": pl.String,
    "behaviour": pl.String,
    "timestamp": TYPE,
    "value": pl.Float32,
    "request_id": pl.String,
    "position": pl.Int16,
    "propensity": pl.Float64,
    "policy_version": pl.String,
}


def read_behaviours(
    rows: pl.DataFrame, config: IngestConfig, behaviours: Sequence[str], now_us: int
) -> pl.DataFrame:
    """Rows of a foreign log in our columns, each with the first reason that speaks against it.

    Args:
        rows: The columns of the log that the mapping names, as text (times may have a time type).
        config: The mapping.
        behaviours: Behaviours of the tasks; impressions are always allowed besides.
        now_us: The present, microseconds since 1970. Later times, but for a day of clock skew, are absurd.

    Returns:
        As many rows as given: the columns of ``SCHEMA`` and ``reason``, null where the row is valid.
    """
    value, position, propensity = (_text(rows, config.source(c)) for c in ("value", "position", "propensity"))
    frame = rows.select(
        _text(rows, config.source("user_id")).alias("user_id"),
        _text(rows, config.source("session_id")).alias("given_session"),
        _text(rows, config.source("item_id")).alias("item_id"),
        _behaviour(config).alias("behaviour"),
        parse_times(rows[config.source("timestamp")], config.time_format, config.time_zone).alias(
            "timestamp"
        ),
        _number(value, float("-inf"), float("inf")).cast(pl.Float32).alias("value"),
        _text(rows, config.source("request_id")).alias("request_id"),
        _whole(position).cast(pl.Int16).alias("position"),
        _number(propensity, 0.0, 1.0, closed="right").alias("propensity"),
        _text(rows, config.source("policy_version")).alias("policy_version"),
        pl.all_horizontal(pl.all().is_null()).alias("_blank"),
        pl.all_horizontal([pl.lit(True), *(condition(rule) for rule in config.keep)]).alias("_kept"),
        value.is_not_null().alias("_value"),
        position.is_not_null().alias("_position"),
        propensity.is_not_null().alias("_propensity"),
    )
    return frame.select(*SCHEMA, _first_reason(behaviours, now_us).alias("reason"))


def _first_reason(behaviours: Sequence[str], now_us: int) -> pl.Expr:
    time_us = pl.col("timestamp").dt.timestamp("us")
    numbers = [pl.col(f"_{name}") & pl.col(name).is_null() for name in ("value", "position", "propensity")]
    failed = {
        "unreadable_row": pl.col("_blank"),
        "filtered": ~pl.col("_kept"),
        "missing_user": pl.col("user_id").is_null(),
        "missing_item": pl.col("item_id").is_null(),
        "unknown_behaviour": ~pl.col("behaviour").is_in([*behaviours, IMPRESSION]).fill_null(False),
        "unreadable_time": pl.col("timestamp").is_null(),
        "absurd_time": ~time_us.is_between(EARLIEST_US, now_us + CLOCK_SKEW_US),
        "unreadable_number": pl.any_horizontal(numbers),
    }
    return pl.coalesce([pl.when(test).then(pl.lit(name)) for name, test in failed.items()])


def mark_repeats(frame: pl.DataFrame, max_per_minute: int) -> pl.DataFrame:
    """Rows with ``reason`` set for exact duplicates, and for all rows of users no human can be.

    Args:
        frame: Valid rows with the columns of ``SCHEMA``, sorted by user and time, earlier log rows first.
        max_per_minute: Behaviours a user may have within 60 s, duplicates and impressions not counted.

    Returns:
        The rows in the same order with ``reason`` null, ``duplicate`` or ``inhuman_rate``. The first of equal
        rows stays.
    """
    same = pl.struct("user_id", "timestamp")
    crowded = frame.select(
        (same == same.shift(1)).fill_null(False) | (same == same.shift(-1)).fill_null(False)
    )
    indexed = frame.with_row_index("_row")
    crowd = indexed.filter(crowded.to_series())
    duplicates = crowd.filter(~crowd.select(pl.struct(*SCHEMA).is_first_distinct()).to_series())["_row"]
    acts = indexed.filter(~pl.col("_row").is_in(duplicates.implode()), pl.col("behaviour") != IMPRESSION)
    later, limit = pl.col("timestamp").shift(-max_per_minute), pl.duration(seconds=60)
    same_user = pl.col("user_id") == pl.col("user_id").shift(-max_per_minute)
    inhuman = acts.filter(same_user & (later - pl.col("timestamp") < limit))["user_id"].unique()
    repeated = pl.when(pl.col("_row").is_in(duplicates.implode())).then(pl.lit("duplicate"))
    reason = repeated.when(pl.col("user_id").is_in(inhuman.implode())).then(pl.lit("inhuman_rate"))
    return indexed.with_columns(reason.alias("reason")).drop("_row")


def condition(rule: Filter) -> pl.Expr:
    """Whether a row satisfies a rule; false where the column is empty. A rule without a bound wants content."""
    parts: list[pl.Expr] = []
    if rule.matches is not None:
        parts.append(pl.col(rule.column).cast(pl.String).str.contains(rule.matches))
    number = pl.col(rule.column).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    if rule.above is not None:
        parts.append(number > rule.above)
    if rule.below is not None:
        parts.append(number < rule.below)
    return pl.all_horizontal(parts).fill_null(False) if parts else pl.col(rule.column).is_not_null()


def text_of(column: str) -> pl.Expr:
    """Stripped text of a column, null where it says nothing."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(~text.str.to_lowercase().is_in(MISSING_WORDS)).then(text)


def check_rules(config: IngestConfig) -> None:
    """See that every rule's regular expression can be used.

    Raises:
        ValueError: One cannot; the message names it.
    """
    for place, rules in (("rules", config.rules), ("keep", config.keep)):
        for number, rule in enumerate(rules):
            try:
                pl.DataFrame({rule.column: [""]}).select(condition(rule))
            except pl.exceptions.ComputeError as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"ingest.{place}.{number}.matches: expected a regular expression, got {rule.matches!r} "
                    f"({reason})."
                ) from error


def _text(rows: pl.DataFrame, column: str) -> pl.Expr:
    return text_of(column) if column in rows.columns else pl.lit(None, pl.String)


def _number(text: pl.Expr, low: float, high: float, closed: Literal["none", "right"] = "none") -> pl.Expr:
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_between(low, high, closed=closed)).then(number)


def _whole(text: pl.Expr) -> pl.Expr:
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_between(0, 32_767) & (number == number.floor())).then(number)


def _behaviour(config: IngestConfig) -> pl.Expr:
    if config.rules:
        return pl.coalesce([pl.when(condition(r)).then(pl.lit(r.behaviour)) for r in config.rules])
    word = pl.col(config.source("behaviour")).cast(pl.String).str.strip_chars()
    if not config.behaviours:
        return word
    words = {IMPRESSION: IMPRESSION, **config.behaviours}
    return word.replace_strict(words, default=None, return_dtype=pl.String)
