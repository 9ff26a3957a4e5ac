"""A made-up world's policy in service, and the log that it leaves behind."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.shop.config import ShopConfig
from pipelines.shop.people import put, rows
from pipelines.shop.worlds import World, open_world

OPENED = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp())
DAY_S, SLATE_S = 86_400, 60


@dataclass(frozen=True)
class ShopLog:
    """A shop, its log, and the truth about each logged session's user."""

    world: World
    scores: NDArray[np.float64]  # [N] of the logging policy
    behaviours: pl.DataFrame
    session_ids: list[str]  # [S]
    visitors: Any  # [S] rows: hidden states at each session's start
    returns: NDArray[np.float64]  # [S, K] logged


def plackett_luce(
    scores: NDArray[np.float64], count: int, length: int, dice: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Slates drawn by scores, and each item's probability given those above. int64 [B, L], float64 [B, L]."""
    keys = scores + dice.gumbel(size=(count, len(scores)))
    top = np.argpartition(-keys, length - 1, 1)[:, :length]
    slates = np.take_along_axis(top, np.argsort(-np.take_along_axis(keys, top, 1), 1), 1)
    weight = np.exp(scores - scores.max())
    above = np.cumsum(weight[slates], 1) - weight[slates]
    return slates, weight[slates] / (weight.sum() - above)


def make_shop(config: ShopConfig, seed: int) -> ShopLog:
    """Open a shop, let its users come and go for ``num_sessions`` sessions, and keep the log.

    Raises:
        ValueError: The catalogue is smaller than the slate.
    """
    if config.num_items < config.slate_length:
        raise ValueError(
            f"shop.num_items: expected at least shop.slate_length ({config.slate_length}), got {config.num_items}."
        )
    dice = np.random.default_rng(seed)
    world = open_world(config, dice)
    scores = world.logging_scores(dice) / config.exploration
    people = world.newcomers(config.num_users, dice)
    order = _visits(config, dice)
    parts, returns, starts = [], np.zeros((config.num_sessions, len(world.tasks))), rows(people, order)
    for visit in range(int(_visit_number(order).max()) + 1):
        sessions = np.flatnonzero(_visit_number(order) == visit)
        users = order[sessions]
        if visit:
            put(people, users, world.return_later(rows(people, users), dice))
        put(starts, sessions, rows(people, users))
        part, after = _play(world, scores, rows(people, users), sessions, config, dice)
        put(people, users, after)
        parts.append(part.with_columns(user=users[part["row"].to_numpy()]))
        np.add.at(
            returns, part["session"].to_numpy(), np.stack([part[t].to_numpy() for t in world.tasks], -1)
        )
    shown = pl.concat(parts)
    when = OPENED + np.sort(dice.uniform(0, 60 * DAY_S, config.num_sessions)).astype(np.int64)
    when = _spaced(when, order)
    log = _log_rows(shown, when, world)
    ids = [f"session-{s:06d}" for s in range(config.num_sessions)]
    return ShopLog(world, scores, log, ids, starts, returns)


def _visits(config: ShopConfig, dice: np.random.Generator) -> NDArray[np.int64]:
    """Which user comes at each session; some come more often. int64 [S]."""
    eager = dice.gamma(1.5, size=config.num_users)
    return dice.choice(config.num_users, config.num_sessions, p=eager / eager.sum())


def _visit_number(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier sessions the session's user had. int64 [S]."""
    frame = pl.DataFrame({"user": order}).with_columns(n=pl.int_range(pl.len()).over("user"))
    return frame["n"].to_numpy().astype(np.int64)


def _spaced(when: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Start times moved so that a user's sessions never overlap: at least two hours apart."""
    frame = pl.DataFrame({"user": order, "when": when}).with_columns(
        n=pl.int_range(pl.len()).over("user") * 7_200,
    )
    lifted = frame.with_columns(
        ((pl.col("when") - pl.col("n")).cum_max().over("user") + pl.col("n")).alias("t")
    )
    return lifted["t"].to_numpy().astype(np.int64)


def _play(
    world: World,
    scores: NDArray[np.float64],
    visitors: Any,
    sessions: NDArray[np.int64],
    config: ShopConfig,
    dice: np.random.Generator,
) -> tuple[pl.DataFrame, Any]:
    """One session of each visitor under the logging policy: a row an item shown, and the visitors afterwards."""
    alive = np.arange(len(sessions))
    frames = []
    for step in range(config.max_steps):
        now = rows(visitors, alive)
        slates, propensities = plackett_luce(scores, len(alive), config.slate_length, dice)
        answer = world.answer(now, slates, dice)
        put(visitors, alive, now)
        size = slates.shape[1]
        columns: dict[str, NDArray[Any]] = {
            "row": np.repeat(alive, size),
            "session": np.repeat(sessions[alive], size),
        }
        columns |= {"step": np.full(slates.size, step), "position": np.tile(np.arange(size), len(alive))}
        columns |= {"item": slates.ravel(), "propensity": propensities.ravel()}
        columns |= {
            task: answer.responses[..., k].ravel().astype(np.int64) for k, task in enumerate(world.tasks)
        }
        frames.append(pl.DataFrame(columns))
        alive = alive[~answer.ended]
        if not len(alive):
            break
    return pl.concat(frames), visitors


def _log_rows(shown: pl.DataFrame, when: NDArray[np.int64], world: World) -> pl.DataFrame:
    """The log in Slatewise's own format: impressions and responses."""
    start = pl.Series("start", when)[shown["session"].to_numpy()]
    common = shown.with_columns(
        shown=start + shown["step"] * SLATE_S,
        price=world.table["price"][shown["item"].to_numpy()] if world.pays_price else pl.lit(None),
        user_id=pl.format("user-{}", pl.col("user").cast(pl.String).str.zfill(6)),
        session_id=pl.format("session-{}", pl.col("session").cast(pl.String).str.zfill(6)),
        item_id=pl.format("item-{}", pl.col("item").cast(pl.String).str.zfill(5)),
        request_id=pl.format("request-{}-{}", "session", "step"),
    )
    impressions = common.with_columns(behaviour=pl.lit("impression"), second=pl.lit(0, pl.Int64))
    parts = [impressions]
    for k, task in enumerate(world.tasks):
        fired = common.filter(pl.col(task) == 1)
        parts.append(fired.with_columns(behaviour=pl.lit(task), second=5 + 10 * pl.col("position") + 2 * k))
    log = pl.concat(parts).sort("session", "step", "second", "position", maintain_order=True)
    impression = pl.col("behaviour") == "impression"
    return log.select(
        "user_id",
        "item_id",
        "behaviour",
        pl.from_epoch(pl.col("shown") + pl.col("second"), "s").dt.replace_time_zone("UTC").alias("timestamp"),
        "session_id",
        pl.when(pl.col("behaviour") == pl.lit(world.pays_price))
        .then("price")
        .cast(pl.Float32)
        .alias("value"),
        "request_id",
        pl.when(impression).then("position").cast(pl.Int16).alias("position"),
        pl.when(impression).then("propensity").alias("propensity"),
        pl.when(impression).then(pl.lit("shop-logging")).alias("policy_version"),
    )
