from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.columns import BehaviourRule, Filter, IngestConfig
from encoders.validity import REASONS, SCHEMA, check_rules, mark_repeats, read_behaviours

NOW_US = 1_700_000_000_000_000  # 2023-11-14
PLAIN = IngestConfig()
START = datetime(2020, 1, 1, tzinfo=UTC)


def judge(config: IngestConfig = PLAIN, **columns: list[str | None]) -> pl.DataFrame:
    return read_behaviours(pl.DataFrame(columns), config, ["view", "purchase"], NOW_US)


def row(**changes: str | None) -> dict[str, list[str | None]]:
    plain = {"user_id": "u", "item_id": "i", "behaviour": "view", "timestamp": "2020-01-01 00:00:00"}
    return {name: [value] for name, value in (plain | changes).items()}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"behaviour": "impression", "position": "0.0", "propensity": "1"}, None),
        ({"user_id": " "}, "missing_user"),
        ({"user_id": "NaN"}, "missing_user"),
        ({"item_id": None}, "missing_item"),
        ({"behaviour": "click"}, "unknown_behaviour"),
        ({"behaviour": None}, "unknown_behaviour"),
        ({"timestamp": "soon"}, "unreadable_time"),
        ({"timestamp": "1989-12-31 23:59:59"}, "absurd_time"),
        ({"timestamp": "2023-11-16 00:00:00"}, "absurd_time"),
        ({"value": "cheap"}, "unreadable_number"),
        ({"value": "inf"}, "unreadable_number"),
        ({"value": ""}, None),
        ({"position": "-1"}, "unreadable_number"),
        ({"position": "1.5"}, "unreadable_number"),
        ({"propensity": "0"}, "unreadable_number"),
        ({"propensity": "1.01"}, "unreadable_number"),
        (dict.fromkeys(("user_id", "item_id", "behaviour", "timestamp")), "unreadable_row"),
    ],
)
def test_reason_of_a_row(changes: dict[str, str | None], reason: str | None) -> None:
    judged = judge(**row(**changes))

    assert judged.columns == [*SCHEMA, "reason"]
    assert judged["reason"].to_list() == [reason]


def test_read_behaviours_maps_words_and_columns() -> None:
    config = IngestConfig(
        columns={
            "user_id": "who",
            "item_id": "what",
            "behaviour": "act",
            "timestamp": "when",
            "value": "price",
        },
        behaviours={"buy": "purchase", "look": "view"},
    )

    judged = judge(
        config,
        who=["u"] * 3,
        what=["i"] * 3,
        act=["buy", "impression", "view"],
        when=["1600000000"] * 3,
        price=["2"] * 3,
    )

    assert judged["behaviour"].to_list() == ["purchase", "impression", None]
    assert judged["reason"].to_list() == [None, None, "unknown_behaviour"]
    assert judged["value"].to_list() == [2.0, 2.0, 2.0]


def test_the_first_rule_that_holds_names_the_behaviour_and_keep_filters() -> None:
    config = IngestConfig(
        rules=[
            BehaviourRule(column="invoice", matches="^C", behaviour="view"),
            BehaviourRule(column="quantity", above=0, below=100, behaviour="purchase"),
        ],
        keep=[Filter(column="item_id", matches="^[0-9]{5}")],
    )

    judged = judge(
        config,
        user_id=["u"] * 5,
        item_id=["12345", "12345A", "12345", "12345", "POST"],
        timestamp=["2020-01-01"] * 5,
        invoice=["C1", "2", "3", "4", "5"],
        quantity=["5", "5", "100", None, "5"],
    )

    assert judged["behaviour"].to_list() == ["view", "purchase", None, None, "purchase"]
    assert judged["reason"].to_list() == [None, None, "unknown_behaviour", "unknown_behaviour", "filtered"]


def test_a_broken_pattern_is_named() -> None:
    config = IngestConfig(keep=[Filter(column="a", above=0), Filter(column="a", matches="(")])

    with pytest.raises(ValueError, match=r"ingest.keep.1.matches: expected a regular expression, got '\('"):
        check_rules(config)


def acts(rows: list[tuple[str, int, str, str]]) -> pl.DataFrame:
    """Valid rows of (user, second, item, behaviour)."""
    plain = dict.fromkeys(SCHEMA)
    records = [
        plain | {"user_id": u, "timestamp": START + timedelta(seconds=s), "item_id": i, "behaviour": b}
        for u, s, i, b in rows
    ]
    return pl.DataFrame(records, schema=SCHEMA)


def test_duplicates_need_not_be_neighbours() -> None:
    rows = acts([("a", 0, "x", "view"), ("a", 0, "y", "view"), ("a", 0, "x", "view"), ("a", 1, "x", "view")])

    assert mark_repeats(rows, 100)["reason"].to_list() == [None, None, "duplicate", None]


def test_inhuman_rate_condemns_the_user_but_counts_no_impressions() -> None:
    fast = [("a", second, str(second), "view") for second in (0, 20, 59)]
    slow = [("b", second, str(second), "view") for second in (0, 20, 60)]
    shown = [("c", second, str(second), "impression") for second in (0, 1, 2)]

    reasons = mark_repeats(acts(fast + slow + shown), 2)["reason"].to_list()

    assert reasons == ["inhuman_rate"] * 3 + [None] * 6


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.none() | st.text(max_size=6) | st.sampled_from(["view", "7", "2020-01-01"])] * 5))
)
def test_any_text_gets_a_known_reason_or_none(rows: list[tuple[str | None, ...]]) -> None:
    names = ["user_id", "item_id", "behaviour", "timestamp", "value"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")

    judged = read_behaviours(frame, IngestConfig(), ["view"], NOW_US)

    assert judged.height == len(rows)
    assert set(judged["reason"].to_list()) <= {None, *REASONS}
    valid = judged.filter(pl.col("reason").is_null())
    assert (
        valid.select("user_id", "item_id", "behaviour", "timestamp").null_count().sum_horizontal().sum() == 0
    )
