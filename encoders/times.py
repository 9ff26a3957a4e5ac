"""Reading the times of a log: whatever form they have, microseconds UTC come out."""

import re

import polars as pl

EPOCH_US = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
ZONED = "%Y-%m-%d %H:%M:%S%.f%z"
PLAIN = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
COMMON = r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d( UTC| GMT|Z)?"
DIGITS = r"\d{9,17}"
TYPE = pl.Datetime("us", "UTC")


def parse_times(times: pl.Series, time_format: str = "auto", time_zone: str = "UTC") -> pl.Series:
    """Times of a log column, null where one cannot be read.

    Args:
        times: Text, or a date or time type as Parquet holds it.
        time_format: ``auto`` (ISO 8601 with or without a zone, or a number since 1970 whose length tells
            seconds, milli- or microseconds), ``epoch_s``, ``epoch_ms``, ``epoch_us``, or a strptime format.
        time_zone: Zone of times that name none. An hour that a clock change repeats is its first one.

    Returns:
        Datetime in microseconds, UTC, as long as ``times``.

    Raises:
        ValueError: The zone or the format is unknown.
    """
    try:
        if times.dtype.is_temporal():
            return _to_utc(times.cast(pl.Datetime("us", getattr(times.dtype, "time_zone", None))), time_zone)
        if time_format == "auto":
            return _parse_auto(times.cast(pl.String), time_zone)
        text = times.cast(pl.String).str.strip_chars()
        if time_format in EPOCH_US:
            return _from_epoch(text, pl.lit(float(EPOCH_US[time_format])))
        return _to_utc(text.str.to_datetime(time_format, strict=False, time_unit="us"), time_zone)
    except pl.exceptions.ComputeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            "ingest.time_format, ingest.time_zone: expected a strptime format and a zone such as Europe/London, "
            f"got {time_format!r} and {time_zone!r} ({reason})."
        ) from error


def _parse_auto(text: pl.Series, time_zone: str) -> pl.Series:
    """The form of the first time, if it is one of the commonest, at once; what is left with care."""
    first = text[found] if (found := text.is_not_null().arg_max()) is not None else None
    if first is not None and re.fullmatch(DIGITS, first):
        out = _from_digits(text)
    elif first is not None and (form := re.fullmatch(COMMON, first)):
        time_format = f"%Y-%m-%d{form[1]}%H:%M:%S{form[2] or ''}"
        plain = text.str.to_datetime(time_format, strict=False, time_unit="us")
        out = _to_utc(plain, "UTC" if form[2] else time_zone)
    else:
        return _parse_any(text.str.strip_chars(), time_zone)
    left = out.is_null() & text.is_not_null()
    others = text.filter(left)
    if not others.str.contains("[0-9]").any():  # no form of a time is without a digit
        return out
    return out.scatter(left.arg_true(), _parse_any(others.str.strip_chars(), time_zone))


def _parse_any(text: pl.Series, time_zone: str) -> pl.Series:
    iso = text.str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "$1 ").str.replace(r"\s*(?:UTC|GMT|[Zz])$", "+00:00")
    iso = iso.str.replace(r"\s+([+-]\d\d:?\d\d)$", "$1")
    out = iso.str.to_datetime(ZONED, strict=False, time_unit="us")
    out = pl.Series(out.name, out, dtype=TYPE) if out.dtype != TYPE else out
    for time_format in PLAIN:
        left = out.is_null() & text.is_not_null()
        if not left.any():
            return out
        plain = text.str.replace(r"^(\d{4}-\d\d-\d\d)[Tt]", "$1 ").str.to_datetime(
            time_format, strict=False, time_unit="us"
        )
        out = _first_of(out, _to_utc(plain, time_zone))
    return _first_of(out, _from_digits(text))


def _from_digits(text: pl.Series) -> pl.Series:
    digits = text.str.len_chars()
    per_unit = (  # seconds have 10 digits until 2286, milliseconds 13, microseconds 16
        pl.when(digits <= 11).then(1e6).when(digits <= 14).then(1e3).otherwise(1.0)
    )
    return _from_epoch(text.set(~text.str.contains(f"^{DIGITS}$").fill_null(False), None), per_unit)


def _from_epoch(text: pl.Series, unit_us: pl.Expr) -> pl.Series:
    whole, fraction = text.cast(pl.Int64, strict=False), text.cast(pl.Float64, strict=False)
    frame = pl.DataFrame({"whole": whole, "fraction": fraction, "given": text})
    # Whole numbers go through floats only where they stay exact: below 2**53 microseconds, the year 2255.
    us = (pl.coalesce(pl.col("whole").cast(pl.Float64), "fraction") * unit_us).round()
    sane = us.is_between(-1e17, 1e17)
    return frame.select(
        pl.when(sane).then(us).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )["whole"]


def _to_utc(times: pl.Series, time_zone: str) -> pl.Series:
    if getattr(times.dtype, "time_zone", None) is not None:
        return times.dt.convert_time_zone("UTC")
    local = times.dt.replace_time_zone(time_zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def _first_of(first: pl.Series, second: pl.Series) -> pl.Series:
    return pl.DataFrame({"first": first, "second": second}).select(pl.coalesce("first", "second"))["first"]
