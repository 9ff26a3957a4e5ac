"""The reader and the school, and what holds in every made-up world."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipelines.config import Config, build_config, load_config
from pipelines.shop.config import ShopConfig
from pipelines.shop.logging_policy import make_shop
from pipelines.shop.people import draw_funnel, rows
from pipelines.shop.reader import ReaderWorld
from pipelines.shop.school import SchoolWorld
from pipelines.shop.truth import OraclePlayer, ShopSessions, response_worth
from pipelines.shop.worlds import WORLDS, check_tasks, open_world
from rl.tasks import build_tasks

every_world = pytest.mark.parametrize("world", sorted(WORLDS))
SMALL = ShopConfig(num_items=60, num_users=200, num_sessions=600)


def settings(world: str, carry_over: float = 1.0) -> ShopConfig:
    return SMALL.model_copy(update={"world": world, "carry_over": carry_over})


def own_config(world: str) -> Config:
    """The settings that ship for the world."""
    return load_config(None if world == "shop" else f"{world}.yaml")


def oracle_returns(name: str, plan: tuple[float, ...], weights: np.ndarray) -> float:
    """Mean true weighted return of 300 newcomers' sessions under an oracle."""
    dice = np.random.default_rng(5)
    world = open_world(ShopConfig(world=name), dice)
    tasks = build_tasks(own_config(name).rl.tasks)
    sessions = ShopSessions(world, world.newcomers(300, dice), response_worth(world, tasks), 6)
    player = OraclePlayer(sessions, weights, 5, plan)
    alive, total = torch.ones(300), 0.0
    for _ in range(100):
        rewards, _, ended = sessions.answer(player.choose(None))  # an oracle does not look at the observation
        total += float((rewards.sum(1) @ torch.from_numpy(weights) * alive).sum())
        alive *= ~ended
    return total / 300


@every_world
def test_log_is_the_same_for_the_same_seed(world: str) -> None:
    first, again, other = (make_shop(settings(world), seed) for seed in (3, 3, 4))

    assert first.behaviours.equals(again.behaviours)
    assert not first.behaviours.equals(other.behaviours)
    assert first.world.table.equals(again.world.table)


@every_world
def test_log_has_the_worlds_funnel(world: str) -> None:
    shop = make_shop(settings(world), 0)
    assert shop.behaviours.schema == make_shop(SMALL, 0).behaviours.schema
    counts = dict(shop.behaviours.group_by("behaviour").len().iter_rows())

    assert set(counts) == {"impression", *shop.world.tasks}
    assert all(
        counts[later] < counts[former] for former, later in pairwise(("impression", *shop.world.tasks))
    )
    assert shop.world.table["item_id"].is_sorted()
    assert shop.world.table["title"].n_unique() > 20


@every_world
def test_without_carry_over_a_slate_leaves_nothing_behind(world: str) -> None:
    dice = np.random.default_rng(2)
    place = open_world(settings(world, carry_over=0.0), dice)
    visitors = place.newcomers(400, dice)
    before = rows(visitors, np.arange(400))

    for _ in range(3):
        place.answer(visitors, np.tile(np.arange(5), (400, 1)), dice)

    for field in fields(visitors):
        np.testing.assert_array_equal(getattr(visitors, field.name), getattr(before, field.name))


@every_world
def test_chances_of_some_items_are_those_of_all(world: str) -> None:
    dice = np.random.default_rng(1)
    place = open_world(settings(world), dice)
    visitors = place.newcomers(20, dice)
    place.answer(visitors, np.tile(np.arange(5), (20, 1)), dice)
    items = dice.integers(0, SMALL.num_items, (20, 7))

    everything = place.probabilities(visitors)
    some = place.probabilities(visitors, items)

    np.testing.assert_allclose(some, np.take_along_axis(everything, items[..., None], 1))
    assert (np.diff(everything, axis=-1) <= 0).all()  # joint along the funnel


@every_world
def test_looking_far_pays_with_carry_over(world: str) -> None:
    weights = build_tasks(own_config(world).rl.tasks).weights
    plans = WORLDS[world].plans

    one_step = oracle_returns(world, (0.0,) * len(plans[0]), weights)
    best = max(oracle_returns(world, plan, weights) for plan in plans)

    assert best > 1.5 * one_step


def test_a_funnel_is_drawn_at_its_chances_and_positions_cost() -> None:
    chances = np.tile([0.4, 0.2, 0.05], (40_000, 2, 1))

    drawn = draw_funnel(chances, 1.0, np.random.default_rng(0)).mean(0)

    np.testing.assert_allclose(drawn[0], [0.4, 0.2, 0.05], atol=0.01)
    second = 1 / (1 + np.exp(-(np.log(0.4 / 0.6) - 1)))
    np.testing.assert_allclose(drawn[1], second * np.array([1, 0.5, 0.125]), atol=0.01)


def test_deep_articles_build_interest_and_light_ones_tire() -> None:
    world = ReaderWorld.open(ShopConfig(num_items=120), np.random.default_rng(1))
    shelf = world.articles
    after = {}
    for name, slate in (("deep", np.argsort(-shelf.depth)[:5]), ("light", np.argsort(shelf.depth)[:5])):
        dice = np.random.default_rng(2)
        readers = world.newcomers(400, dice)
        before = readers.interest[:, shelf.subject[slate]].mean()
        for _ in range(10):
            world.answer(readers, np.tile(slate, (400, 1)), dice)
        after[name] = (readers.interest[:, shelf.subject[slate]].mean() - before, readers.fatigue.mean())

    assert after["deep"][0] > 0.08 > 5 * after["light"][0]
    assert after["light"][1] > after["deep"][1] + 0.1


def test_exercises_a_little_above_the_skill_teach_most() -> None:
    world = SchoolWorld.open(ShopConfig(num_items=400), np.random.default_rng(1))
    shelf = world.exercises
    learned = {}
    for name, level in (("easy", 0.05), ("just above", 0.45), ("far above", 0.95)):
        dice = np.random.default_rng(2)
        pupils = world.newcomers(400, dice)
        before = pupils.skill.mean()
        slate = np.argsort(np.abs(shelf.level - level))[:5]
        for _ in range(3):
            world.answer(pupils, np.tile(slate, (400, 1)), dice)
        learned[name] = pupils.skill.mean() - before

    assert learned["just above"] > 5 * max(learned["easy"], learned["far above"], 1e-3)


def test_demo_names_a_worlds_tasks_when_the_settings_have_others(tmp_path) -> None:
    from pipelines.demo import run_demo

    config = build_config({"shop": {"world": "school"}, "paths": {"run": str(tmp_path / "run")}})
    with pytest.raises(ValueError, match=r"made-up school has try, solve, master.*--config school\.yaml"):
        run_demo(config)
    assert not (tmp_path / "run").exists()


def test_later_sessions_keep_a_part_of_what_was_won() -> None:
    dice = np.random.default_rng(0)
    for world, name in (
        (ReaderWorld.open(SMALL, dice), "interest"),
        (SchoolWorld.open(SMALL, dice), "skill"),
    ):
        first = world.newcomers(200, dice)
        getattr(first, name)[:] = 0.9
        later = getattr(world.return_later(first, dice), name).mean()
        assert world.newcomers(200, dice).__dict__[name].mean() + 0.1 < later < 0.9


def test_brands_that_look_best_sell_best_and_come_back() -> None:
    shop = make_shop(settings("clothes").model_copy(update={"num_sessions": 3000}), 0)
    looks = shop.world.looks
    counts = {}
    for task in ("impression", "purchase", "return"):
        rows_of = (
            shop.behaviours.filter(shop.behaviours["behaviour"] == task)["item_id"].str.tail(5).cast(int)
        )
        index = rows_of.to_numpy()
        counts[task] = np.array([(looks[index] < 0).sum(), (looks[index] > 0).sum()])

    plain, fine = counts["purchase"] / counts["impression"]
    kept, back = counts["return"] / counts["purchase"]
    assert fine > 1.5 * plain
    assert back > 2 * kept


@every_world
def test_rarity_divides_the_chance_of_the_last_task(world: str) -> None:
    chances = []
    for rarity in (1.0, 20.0):
        dice = np.random.default_rng(1)
        place = open_world(settings(world).model_copy(update={"rarity": rarity}), dice)
        chances.append(place.probabilities(place.newcomers(20, dice)))

    rare = chances[0] / chances[1]
    last = 2 if world == "clothes" else -1  # there a purchase is rarer, and a return with it
    np.testing.assert_allclose(rare[..., last], 20.0)
    np.testing.assert_allclose(rare[..., :2], 1.0)


def test_responses_pay_ones_prices_or_costs() -> None:
    place = open_world(settings("clothes").model_copy(update={"price_scale": 4.0}), np.random.default_rng(1))
    config = own_config("clothes")
    tasks = build_tasks(
        config.rl.tasks | {"purchase": config.rl.tasks["purchase"].model_copy(update={"pays": "value"})}
    )

    worth = response_worth(place, tasks)

    np.testing.assert_array_equal(worth[:, :2], 1.0)
    np.testing.assert_allclose(worth[:, 2], place.table["price"].to_numpy(), rtol=1e-6)
    assert 50 < worth[:, 2].mean() < 250
    np.testing.assert_array_equal(worth[:, 3], -1.0)


def test_a_price_is_refused_where_there_is_none() -> None:
    own = own_config("reader").rl.tasks
    paying = own | {"save": own["save"].model_copy(update={"pays": "value"})}

    check_tasks("reader", build_tasks(own))
    with pytest.raises(ValueError, match=r"rl\.tasks\.save\.pays.*nothing has a price in the made-up reader"):
        check_tasks("reader", build_tasks(paying))
