"""A run's policies and rivals, ready to play, to score and to be asked for probabilities."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors

from encoders.sessions import SessionLog
from encoders.state import States
from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.dataset import cached_item_embeddings, load_simulator
from pipelines.progress import track
from rl.evaluation.bandit_rival import bandit_scorer
from rl.evaluation.ranking import Scorer
from rl.evaluation.rivals import popularity
from rl.players import GreedyPlayer, Player, PolicyPlayer, ScorerPlayer, StatelessPlayer, play_simulated
from rl.policy.network import PolicyShape, SlatePolicy
from rl.tasks import Tasks, build_tasks

BATCH = 1024  # states scored at once
PLAYED = 250  # sessions played at once: few enough for a cache, and each batch ends with its longest session


def load_policy(run: RunDirectory, name: str) -> SlatePolicy:
    """A trained policy: ``clone`` or ``ppo``."""
    folder = run.folder("train")
    shape = PolicyShape.model_validate(folder.read_json("shape.json"))
    policy = SlatePolicy(shape, cached_item_embeddings(run.uri))
    policy.load_state_dict(load_safetensors(folder.read_bytes(f"{name}.safetensors")))
    return policy.eval().requires_grad_(False)


def make_players(run: RunDirectory, config: Config, log: SessionLog) -> dict[str, Player]:
    """Every policy of the comparison that needs no truth, by name."""
    tasks, length = build_tasks(config.rl.tasks), config.rl.slate_length
    num_items = len(cached_item_embeddings(run.uri))
    generator = torch.Generator().manual_seed(config.seed)
    top = torch.from_numpy(popularity(log, num_items, tasks)).topk(length).indices
    players: dict[str, Player] = {
        "random": StatelessPlayer(
            lambda n: torch.rand(n, num_items, generator=generator).topk(length).indices
        ),
        "popular": StatelessPlayer(lambda n: top.expand(n, -1)),
        "greedy": GreedyPlayer(load_simulator(run, config, "train"), length, config.seed),
        "clone": PolicyPlayer(load_policy(run, "clone"), length, config.seed),
        "ppo": PolicyPlayer(load_policy(run, "ppo"), length, config.seed),
    }
    bandit = bandit_scorer(log, cached_item_embeddings(run.uri), tasks)
    if bandit is not None:
        sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
        players["bandit"] = ScorerPlayer(bandit, sessions, length)
    logged = _logged_slates(log, length)
    if logged is not None:
        drawn = logged
        players["logging"] = StatelessPlayer(
            lambda n: drawn[torch.randint(len(drawn), (n,), generator=generator)]
        )
    return players


def _logged_slates(log: SessionLog, length: int) -> torch.Tensor | None:
    """The test sessions' slates of full length, to be replayed at random; None where the log has none."""
    if log.slates is None or log.slates.items.shape[1] < length:
        return None
    test = np.isin(log.slates.session, log.sessions("test"))
    slates = log.slates.items[test][:, :length]
    slates = slates[(slates >= 0).all(1)]
    return torch.from_numpy(slates) if len(slates) else None


def evaluation_sessions(log: SessionLog, num_sessions: int) -> NDArray[np.int64]:
    """Test sessions to start from, earliest first, repeated where there are fewer than asked for. int64 [n]."""
    return np.resize(log.sessions("test"), num_sessions)


def simulated_returns(
    run: RunDirectory, config: Config, log: SessionLog, scorers: Mapping[str, Scorer]
) -> dict[str, NDArray[np.float32]]:
    """Signed return of each session per task in the held-out simulator, by policy. float32 [n, K].

    Args:
        run: With finished fit-simulator and train.
        config: Of the evaluation.
        log: Its test sessions are where the played ones start.
        scorers: Rivals by name; those that have no player of their own play their best items.
    """
    sessions = evaluation_sessions(log, config.rl.evaluation.num_sessions)
    own = make_players(run, config, log)
    players: dict[str, Player] = {
        name: ScorerPlayer(scorer, sessions, config.rl.slate_length)
        for name, scorer in scorers.items()
        if name not in own
    }
    weights = build_tasks(config.rl.tasks).weights
    return _play_held_out(
        run, config, log.past[sessions], {n: (p, weights) for n, p in (players | own).items()}
    )


def one_task_returns(run: RunDirectory, config: Config, log: SessionLog) -> dict[str, NDArray[np.float32]]:
    """As ``simulated_returns``, of the candidate asked for one task alone, by task. Tasks of weight 0 are left out."""
    sessions, tasks = (
        evaluation_sessions(log, config.rl.evaluation.num_sessions),
        build_tasks(config.rl.tasks),
    )
    policy = load_policy(run, "ppo")
    players: dict[str, tuple[Player, NDArray[np.float32]]] = {
        name: (
            PolicyPlayer(policy, config.rl.slate_length, config.seed),
            np.eye(len(tasks), dtype=np.float32)[k],
        )
        for k, name in enumerate(tasks.names)
        if tasks.weights[k] > 0
    }
    return _play_held_out(run, config, log.past[sessions], players)


def _play_held_out(
    run: RunDirectory,
    config: Config,
    past: NDArray[np.float32],
    players: Mapping[str, tuple[Player, NDArray[np.float32]]],
) -> dict[str, NDArray[np.float32]]:
    """Each player, at its task weights, in the held-out simulator, all from the same pasts and dice."""
    heldout = replace(load_simulator(run, config, "heldout"), pessimism=0.0)
    out = {}
    for name, (player, weights) in track(players.items(), total=len(players), what="playing"):
        generator = torch.Generator().manual_seed(config.seed)
        parts = [
            play_simulated(
                heldout, player, part, torch.from_numpy(weights), config.rl.history_length, generator
            )[0]
            for part in torch.split(torch.from_numpy(past), PLAYED)
        ]
        out[name] = torch.cat(parts).numpy()
    return out


def policy_scores(run: RunDirectory, config: Config) -> dict[str, Callable[[States], NDArray[np.float32]]]:
    """Scores of the whole catalogue by the trained policies at the configured task weights."""
    tasks = build_tasks(config.rl.tasks)
    return {name: _scorer(load_policy(run, name), tasks) for name in ("clone", "ppo")}


def _scorer(policy: SlatePolicy, tasks: Tasks) -> Callable[[States], NDArray[np.float32]]:
    with torch.no_grad():
        keys = policy.item_keys()

    def score(states: States) -> NDArray[np.float32]:
        return _logits(policy, states, tasks, keys).numpy()

    return score


@torch.no_grad()
def _logits(policy: SlatePolicy, states: States, tasks: Tasks, keys: object) -> torch.Tensor:
    weights = torch.from_numpy(tasks.weights).expand(len(states), -1)
    return policy.logits(
        torch.from_numpy(states.past),
        torch.from_numpy(states.history_items),
        torch.from_numpy(states.history_tasks),
        weights,
        keys=keys,  # type: ignore[arg-type]
    )
