"""Which rows of a log are valid behaviours, and why the others are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from encoders.coded import Coded, clean, encode
from encoders.columns import IMPRESSION, BehaviourRule, Filter, IngestConfig
from encoders.times import parse_times

REASONS = (
    "unreadable_row",
    "filtered",
    "missing_user",
    "missing_item",
    "unknown_behaviour",
    "unreadable_time",
    "absurd_time",
    "unreadable_number",
    "forgotten",
    "duplicate",
    "inhuman_rate",
    "rare_item",
    "rare_user",
)
CODES = {reason: number for number, reason in enumerate(REASONS, start=1)}  # 0 is valid
EARLIEST_US = 631_152_000_000_000  # 1990-01-01: before any log of a shop or a player
CLOCK_SKEW_US = 86_400_000_000  # a day: clocks ahead, and local times taken for UTC
JOIN = "|"  # between the texts of several columns that are one of ours

NUMBERS: dict[str, type[pl.DataType]] = {
    "value": pl.Float32,
    "position": pl.Int16,
    "propensity": pl.Float64,
}
TEXTS = ("request_id", "policy_version")


@dataclass(frozen=True)
class Judged:
    """Rows of a log in our columns, each with the first reason that speaks against it."""

    users: Coded  # [n]
    items: Coded  # [n]
    sessions: Coded | None  # [n], the log's own; None where it names none
    words: Coded | None  # [n], the log's words for behaviours; None where rules make them
    behaviour: NDArray[np.int16]  # [n], index into the known behaviours, -1 where unknown
    also: NDArray[np.uint16]  # [n], bit i: the row is the behaviour of ``also[i]`` as well
    timestamp: NDArray[np.int64]  # [n], microseconds since 1970, UTC; meaningless where unreadable
    others: pl.DataFrame  # [n], those of NUMBERS and TEXTS that the log has
    reason: NDArray[np.uint8]  # [n], 0 where valid, else 1 + the index into REASONS


class _Log:
    """The columns of a log, each numbered when it is first asked for."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows = rows
        self._raw: dict[str, Coded] = {}
        self._clean: dict[str, Coded] = {}

    def raw(self, name: str) -> Coded:
        if name not in self._raw:
            self._raw[name] = encode(self.rows[name].cast(pl.String))
        return self._raw[name]

    def text(self, names: Sequence[str]) -> Coded | None:
        """Stripped text of a column, or of several joined; None where the log lacks one of them."""
        if not set(names) <= set(self.rows.columns):
            return None
        key = JOIN.join(names)
        if key not in self._clean:
            column = self.raw(names[0]) if len(names) == 1 else encode(self._joined(names))
            self._clean[key] = clean(column)
        return self._clean[key]

    def _joined(self, names: Sequence[str]) -> pl.Series:
        texts = [pl.col(name).cast(pl.String).str.strip_chars() for name in names]
        return self.rows.select(pl.concat_str(texts, separator=JOIN).alias("joined"))["joined"]

    def holds(self, rule: Filter) -> NDArray[np.bool_]:
        """Whether each row satisfies a rule. [n]"""
        if rule.column is None:
            return np.ones(self.rows.height, dtype=np.bool_)
        column = self.raw(rule.column)
        return column.flags(column.values.to_frame("text").select(condition(rule)).to_series())


def judge(
    rows: pl.DataFrame,
    config: IngestConfig,
    behaviours: Sequence[str],
    now_us: int,
) -> Judged:
    """Read the rows of a foreign log in our columns, and judge each.

    Args:
        rows: The columns of the log that the mapping names, as text (times may have a time type). [n]
        config: The mapping.
        behaviours: Known behaviours: those of the tasks, and impressions.
        now_us: The present, microseconds since 1970. Later times, but for a day of clock skew, are absurd.
    """
    log = _Log(rows)
    users, items = log.text(config.sources("user_id")), log.text(config.sources("item_id"))
    assert users is not None and items is not None
    words = None if config.rules else log.raw(config.sources("behaviour")[0])
    behaviour = (
        _by_rules(log, config.rules, behaviours) if words is None else _by_word(words, config, behaviours)
    )
    also = np.zeros(rows.height, dtype=np.uint16)
    for bit, rule in enumerate(config.also):
        also |= log.holds(rule).astype(np.uint16) << bit
    times = parse_times(rows[config.sources("timestamp")[0]], config.time_format, config.time_zone)
    times_us = times.dt.timestamp("us")
    read = {name: number for name in NUMBERS if (number := _read_number(log, name, config)) is not None}
    others = {n: text.spread(text.values) for n in TEXTS if (text := log.text(config.sources(n))) is not None}
    timestamp = times_us.fill_null(0).to_numpy()
    failed = {
        "unreadable_row": rows.select(pl.all_horizontal(pl.all().is_null()))[:, 0].to_numpy(),
        "filtered": _any([~log.holds(rule) for rule in config.keep], rows.height),
        "missing_user": users.codes < 0,
        "missing_item": items.codes < 0,
        "unknown_behaviour": behaviour < 0,
        "unreadable_time": times_us.is_null().to_numpy(),
        "absurd_time": (timestamp < EARLIEST_US) | (timestamp > now_us + CLOCK_SKEW_US),
        "unreadable_number": _any([lost for _, lost in read.values()], rows.height),
    }
    return Judged(
        users=users,
        items=items,
        sessions=log.text(config.sources("session_id")),
        words=words,
        behaviour=behaviour,
        also=also,
        timestamp=np.asarray(timestamp, dtype=np.int64),
        others=pl.DataFrame(
            [s.rename(n) for n, s in {**{n: number for n, (number, _) in read.items()}, **others}.items()]
        ),
        reason=first_reason(failed, rows.height),
    )


def first_reason(failed: Mapping[str, NDArray[np.bool_]], length: int) -> NDArray[np.uint8]:
    """Code of the first reason that holds for each row, 0 where none does. [n]"""
    reason = np.zeros(length, dtype=np.uint8)
    for name in sorted(failed, key=REASONS.index, reverse=True):
        reason[failed[name]] = CODES[name]
    return reason


def condition(rule: Filter) -> pl.Expr:
    """Whether the column ``text`` satisfies a rule; a rule without a bound wants content."""
    parts: list[pl.Expr] = []
    if rule.matches is not None:
        parts.append(pl.col("text").str.contains(rule.matches))
    number = pl.col("text").str.strip_chars().cast(pl.Float64, strict=False)
    if rule.above is not None:
        parts.append(number > rule.above)
    if rule.below is not None:
        parts.append(number < rule.below)
    return pl.all_horizontal(parts or [pl.col("text").is_not_null()])


def check_rules(config: IngestConfig) -> None:
    """See that every regular expression of the mapping can be used.

    Raises:
        ValueError: One cannot; the message names it.
    """
    rules: dict[str, str | None] = {"entries.pattern": config.entries.pattern if config.entries else None}
    for place in ("rules", "also", "keep"):
        listed: Sequence[Filter | BehaviourRule] = getattr(config, place)
        rules |= {f"{place}.{number}.matches": rule.matches for number, rule in enumerate(listed)}
    for key, pattern in rules.items():
        try:
            pl.DataFrame({"text": [""]}).select(pl.col("text").str.contains(pattern or ""))
        except pl.exceptions.ComputeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"ingest.{key}: expected a regular expression, got {pattern!r} ({reason})."
            ) from error


def _any(flags: Sequence[NDArray[np.bool_]], length: int) -> NDArray[np.bool_]:
    return np.asarray(np.logical_or.reduce([np.zeros(length, dtype=np.bool_), *flags]), dtype=np.bool_)


def _read_number(log: _Log, name: str, config: IngestConfig) -> tuple[pl.Series, NDArray[np.bool_]] | None:
    """A column's numbers, and where it says something that is none; None where the log has no such column. [n]"""
    names = config.sources(name)
    if len(names) == 1 and names[0] in log.rows.columns:
        column = log.rows[names[0]]
        numbers = _sane_numbers(name, column.cast(pl.String), config)
        if (
            numbers.null_count() == column.null_count()
        ):  # nearly always: there is nothing to look at more closely
            return numbers.cast(NUMBERS[name]), np.zeros(len(numbers), dtype=np.bool_)
    text = log.text(names)
    if text is None:
        return None
    numbers = text.spread(_sane_numbers(name, text.values, config)).cast(NUMBERS[name])
    return numbers, (text.codes >= 0) & numbers.is_null().to_numpy()


def _sane_numbers(name: str, texts: pl.Series, config: IngestConfig) -> pl.Series:
    """Texts as numbers of the range that a column has, null where they are not. float64"""
    number = texts.cast(pl.Float64, strict=False)
    if name == "position":
        number = number - config.first_position
        good = number.is_between(0, 32_767) & (number == number.floor())
    elif name == "propensity":
        good = number.is_between(0, 1, closed="right")
    else:
        good = number.is_finite()
    return number if good.all() else number.set(~good.fill_null(False), None)


def _by_word(words: Coded, config: IngestConfig, behaviours: Sequence[str]) -> NDArray[np.int16]:
    known = {word: number for number, word in enumerate(behaviours)}
    ours = {IMPRESSION: IMPRESSION, **config.behaviours} if config.behaviours else {w: w for w in known}
    codes = [known.get(ours.get((word or "").strip(), ""), -1) for word in words.values]
    return np.array([*codes, -1], dtype=np.int16)[words.codes]


def _by_rules(log: _Log, rules: Sequence[BehaviourRule], behaviours: Sequence[str]) -> NDArray[np.int16]:
    behaviour = np.full(log.rows.height, -1, dtype=np.int16)
    for rule in reversed(rules):
        code = behaviours.index(rule.behaviour) if rule.behaviour in behaviours else -1
        behaviour[log.holds(rule)] = code
    return behaviour
