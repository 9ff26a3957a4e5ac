import numpy as np
import polars as pl
import pytest

from pipelines.shop.catalogue import make_catalogue
from pipelines.shop.config import ShopConfig
from pipelines.shop.logging_policy import make_shop, plackett_luce
from pipelines.shop.people import rows
from pipelines.shop.world import ShopWorld

SMALL = ShopConfig(num_items=30, num_users=40, num_sessions=120)


def test_shop_is_the_same_for_the_same_seed() -> None:
    first, again, other = make_shop(SMALL, 3), make_shop(SMALL, 3), make_shop(SMALL, 4)

    assert first.behaviours.equals(again.behaviours)
    assert not first.behaviours.equals(other.behaviours)


def test_propensities_multiply_to_the_slates_probability() -> None:
    scores = np.array([0.0, 1.0, -0.5, 2.0])
    slates, chances = plackett_luce(scores, 3, 2, np.random.default_rng(0))

    for slate, chance in zip(slates, chances, strict=True):
        weight = np.exp(scores)
        assert chance[0] == pytest.approx(weight[slate[0]] / weight.sum())
        assert chance[1] == pytest.approx(weight[slate[1]] / (weight.sum() - weight[slate[0]]))


def test_log_has_a_funnel_and_positions_from_zero() -> None:
    log = make_shop(SMALL, 0).behaviours
    counts = dict(log.group_by("behaviour").len().iter_rows())

    assert counts["impression"] > counts["view"] > counts["cart"] > counts["purchase"] > 0
    shown = (
        log.filter(pl.col("behaviour") == "impression").group_by("request_id").agg(pl.col("position").sort())
    )
    assert set(map(tuple, shown["position"].to_list())) == {(0, 1, 2, 3, 4)}


def test_sessions_of_a_user_do_not_overlap() -> None:
    log = make_shop(SMALL, 0).behaviours
    spans = log.group_by("user_id", "session_id").agg(
        pl.col("timestamp").min().alias("start"), pl.col("timestamp").max().alias("end")
    )
    spans = spans.sort("user_id", "start").with_columns(pl.col("end").shift().over("user_id").alias("before"))

    assert spans.filter(pl.col("start") <= pl.col("before")).is_empty()


def test_bait_sours_and_costs_trust() -> None:
    world = ShopWorld(make_catalogue(60, np.random.default_rng(1)))
    shelf = world.catalogue
    bait, calm = np.argsort(-shelf.bait)[:5], np.argsort(shelf.bait)[:5]
    after = {}
    for name, slate in (("bait", bait), ("calm", calm)):
        dice = np.random.default_rng(2)
        visitors = world.newcomers(400, dice)
        for _ in range(5):
            world.answer(visitors, np.tile(slate, (400, 1)), dice)
        after[name] = (visitors.sourness.mean(), visitors.trust.mean())

    assert after["bait"][0] > after["calm"][0] + 0.2
    assert after["bait"][1] < after["calm"][1] - 0.05


def test_without_carry_over_a_slate_leaves_nothing_behind() -> None:
    world = ShopWorld(make_catalogue(60, np.random.default_rng(1)), carry_over=0.0)
    dice = np.random.default_rng(2)
    visitors = world.newcomers(400, dice)
    before = rows(visitors, np.arange(400))

    world.answer(visitors, np.tile(np.arange(5), (400, 1)), dice)

    for name in ("taste", "trust", "satiation", "sourness"):
        np.testing.assert_array_equal(getattr(visitors, name), getattr(before, name))


def test_a_log_that_explores_less_shows_fewer_items() -> None:
    def shown(exploration: float) -> int:
        log = make_shop(SMALL.model_copy(update={"exploration": exploration}), 0).behaviours
        return log.filter(pl.col("behaviour") == "impression")["item_id"].n_unique()

    assert shown(0.1) < 0.7 * shown(1.0)


def test_catalogue_smaller_than_slate_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"shop\.num_items: expected at least shop\.slate_length \(5\), got 3"
    ):
        make_shop(ShopConfig(num_items=3), 0)
