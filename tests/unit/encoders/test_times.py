from datetime import UTC, date, datetime

import polars as pl
import pytest

from encoders.times import parse_times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019-10-01 00:00:05 UTC", datetime(2019, 10, 1, 0, 0, 5, tzinfo=UTC)),
        ("2019-10-01T00:00:05Z", datetime(2019, 10, 1, 0, 0, 5, tzinfo=UTC)),
        ("2019-10-01T02:00:05.25+02:00", datetime(2019, 10, 1, 0, 0, 5, 250_000, tzinfo=UTC)),
        ("2019-10-01 02:00:05 +0200", datetime(2019, 10, 1, 0, 0, 5, tzinfo=UTC)),
        ("2019-10-01 00:00", datetime(2019, 10, 1, tzinfo=UTC)),
        ("2019-10-01", datetime(2019, 10, 1, tzinfo=UTC)),
        ("1569888005", datetime(2019, 10, 1, 0, 0, 5, tzinfo=UTC)),
        ("1569888005250", datetime(2019, 10, 1, 0, 0, 5, 250_000, tzinfo=UTC)),
        ("1569888005250001", datetime(2019, 10, 1, 0, 0, 5, 250_001, tzinfo=UTC)),
        ("yesterday", None),
        ("2019-13-01 00:00:00", None),
        ("", None),
        (None, None),
    ],
)
def test_auto_reads_common_forms(text: str | None, expected: datetime | None) -> None:
    times = pl.Series([text, "2020-01-01 00:00:00"], dtype=pl.String)

    assert parse_times(times).to_list() == [expected, datetime(2020, 1, 1, tzinfo=UTC)]


def test_a_local_time_is_read_in_its_zone_and_a_repeated_hour_is_the_first() -> None:
    times = pl.Series(["2011-07-01 09:00:00", "2011-10-30 01:30:00", "2011-03-27 01:30:00"])

    read = parse_times(times, time_zone="Europe/London").to_list()

    assert read == [
        datetime(2011, 7, 1, 8, tzinfo=UTC),
        datetime(2011, 10, 30, 0, 30, tzinfo=UTC),
        None,  # an hour that the clocks skipped
    ]


def test_epoch_and_strptime_formats_are_read() -> None:
    assert parse_times(pl.Series(["1.5", "x", "1e300"]), "epoch_s").to_list() == [
        datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC),
        None,
        None,
    ]
    assert parse_times(pl.Series(["01/12/2010 08:26"]), "%d/%m/%Y %H:%M").to_list() == [
        datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    ]


def test_typed_times_keep_their_instant() -> None:
    typed = pl.Series([datetime(2020, 1, 1, 12)], dtype=pl.Datetime("ns", "Europe/Paris"))

    assert parse_times(typed)[0] == typed[0]
    assert parse_times(pl.Series([date(2020, 1, 1)]))[0] == datetime(2020, 1, 1, tzinfo=UTC)


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(ValueError, match=r"ingest.time_zone: expected .* got 'auto' and 'Mars/Olympus'"):
        parse_times(pl.Series(["2020-01-01 00:00:00"]), time_zone="Mars/Olympus")
