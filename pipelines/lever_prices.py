"""What levers at ranking time cost and bring, in the held-out simulator."""

from typing import Any

import torch
from torch import Tensor

from encoders.columns import ITEM_GROUP
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import cached_item_embeddings, item_column, load_items
from pipelines.judge import HeldOutJudge
from rl.players import Player, PolicyPlayer, RerankedPlayer
from rl.policy.network import SlatePolicy
from rl.simulator.levered import limited_groups, slate_diversity
from rl.simulator.trace import Observation


def lever_prices(
    run: RunDirectory, config: Config, judge: HeldOutJudge, policy: SlatePolicy
) -> list[dict[str, Any]]:
    """A row a way to rank with the trained policy: drawn, its best slates, and these re-ranked by the levers.

    Each has ``return`` (weighted), ``price`` (share of the best slates' return that is lost), ``diversity`` (of a
    slate, in [0, 1]), ``exposure`` (share of the shown items by limited group) and ``largest_loss`` (of a slate's
    worth; None where nothing is re-ranked).
    """
    levers, length = config.rl.levers, config.rl.slate_length
    groups = limited_groups(levers, item_column(load_items(run), ITEM_GROUP))
    limits = torch.tensor(list(levers.exposure_limits.values()))
    ways: dict[str, Player] = {
        "drawn": PolicyPlayer(policy, length, config.seed),
        "best": RerankedPlayer(policy, length, 0.0),
        "reranked": RerankedPlayer(policy, length, levers.ranking_loss, groups, limits),
    }
    vectors = torch.nn.functional.normalize(torch.from_numpy(cached_item_embeddings(run.uri)), dim=-1)
    rows: list[dict[str, Any]] = []
    for name, player in ways.items():
        seen = _Seen(player)
        worth = judge.play(seen)["held_out/weighted"]
        slates = torch.cat(seen.slates)
        shown = groups[slates]
        losses = torch.cat(player.losses).sum(-1) if name == "reranked" else None  # type: ignore[attr-defined]
        rows.append(
            {
                "ranking": name,
                "return": worth,
                "diversity": float(slate_diversity(vectors, slates).sum(-1).mean()),
                "exposure": {
                    group: float((shown == index).float().mean())
                    for index, group in enumerate(levers.exposure_limits)
                },
                "largest_loss": None if losses is None else float(losses.max()),
            }
        )
    best = rows[1]["return"]
    return [row | {"price": 1 - row["return"] / best if best else None} for row in rows]


class _Seen:
    """A player whose slates are kept."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.slates: list[Tensor] = []

    def start(self, past: Tensor) -> None:
        """As the player's."""
        self.player.start(past)

    def choose(self, observation: Observation) -> Tensor:
        """The player's slates."""
        self.slates.append(self.player.choose(observation))
        return self.slates[-1]

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """As the player's."""
        self.player.watch(slates, responses)

    def keep(self, rows: Tensor) -> None:
        """As the player's."""
        self.player.keep(rows)
