import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.columns import BehaviourRule, Filter, IngestConfig
from encoders.repeats import mark_repeats
from encoders.validity import REASONS, check_rules
from encoders.validity import judge as judge_rows

NOW_US = 1_700_000_000_000_000  # 2023-11-14
PLAIN = IngestConfig()
NAMES = ["view", "purchase", "impression"]


def judge(config: IngestConfig = PLAIN, **columns: list[str | None]) -> pl.DataFrame:
    return as_frame(pl.DataFrame(columns), config)


def as_frame(rows: pl.DataFrame, config: IngestConfig) -> pl.DataFrame:
    """Every row with its texts and the name of its reason."""
    judged = judge_rows(rows, config, NAMES, NOW_US)
    told = {
        "user_id": judged.users.spread(judged.users.values),
        "item_id": judged.items.spread(judged.items.values),
        "behaviour": pl.Series(
            [NAMES[code] if code >= 0 else None for code in judged.behaviour], dtype=pl.String
        ),
        "timestamp": pl.Series(judged.timestamp),
        "also": pl.Series(judged.also),
        "reason": pl.Series([REASONS[code - 1] if code else None for code in judged.reason], dtype=pl.String),
    }
    return pl.DataFrame([*(series.rename(name) for name, series in told.items()), *judged.others])


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


def test_a_row_may_be_several_behaviours_and_columns_may_be_joined() -> None:
    config = IngestConfig(
        columns={"user_id": ["age", "city"], "position": "place"},
        rules=[BehaviourRule(behaviour="impression")],
        also=[BehaviourRule(column="click", above=0, behaviour="view")],
        first_position=1,
    )

    judged = judge(
        config,
        age=["4", "4", None],
        city=["x ", "y", "x"],
        item_id=["i"] * 3,
        timestamp=["2020-01-01"] * 3,
        place=["1", "0", "3"],
        click=["1", "0", "1"],
    )

    assert judged["user_id"].to_list() == ["4|x", "4|y", None]
    assert judged["behaviour"].to_list() == ["impression"] * 3
    assert judged["also"].to_list() == [1, 0, 1]
    assert judged["position"].to_list() == [0, None, 2]
    assert judged["reason"].to_list() == [None, "unreadable_number", "missing_user"]


def acts(rows: list[tuple[int, int, int, int]]) -> list[str | None]:
    """Reasons of rows of (user, second, item, behaviour) where 2 behaviours a minute are many."""
    frame = pl.DataFrame(rows, schema=["user", "timestamp", "item", "behaviour"], orient="row")
    codes = mark_repeats(frame.with_columns(pl.col("timestamp") * 1_000_000), 2, impression=9)
    return [REASONS[code - 1] if code else None for code in codes]


def test_duplicates_need_not_be_neighbours() -> None:
    assert acts([(0, 0, 1, 0), (0, 0, 2, 0), (0, 0, 1, 0), (0, 90, 1, 0)]) == [None, None, "duplicate", None]


def test_inhuman_rate_condemns_the_user_but_counts_no_impressions() -> None:
    fast = [(0, second, second, 0) for second in (0, 20, 59)]
    slow = [(1, second, second, 0) for second in (0, 20, 60)]
    shown = [(2, second, second, 9) for second in (0, 1, 2)]

    assert acts(fast + slow + shown) == ["inhuman_rate"] * 3 + [None] * 6


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.none() | st.text(max_size=6) | st.sampled_from(["view", "7", "2020-01-01"])] * 5))
)
def test_any_text_gets_a_known_reason_or_none(rows: list[tuple[str | None, ...]]) -> None:
    names = ["user_id", "item_id", "behaviour", "timestamp", "value"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")

    judged = as_frame(frame, IngestConfig())

    assert judged.height == len(rows)
    assert set(judged["reason"].to_list()) <= {None, *REASONS}
    valid = judged.filter(pl.col("reason").is_null())
    assert (
        valid.select("user_id", "item_id", "behaviour", "timestamp").null_count().sum_horizontal().sum() == 0
    )
