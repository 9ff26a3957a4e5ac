"""How far a simulator can be trusted: predictions on later sessions, and drift of what it plays from the log."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from encoders.sessions import SessionLog
from rl.players import StatelessPlayer, play_simulated
from rl.simulator.boosted_trees import boosted_chances, item_rates
from rl.simulator.simulation import Ensemble
from rl.simulator.steps import Steps

AGREES = 0.25  # relative gap up to which a replayed log agrees with the logged one


def auc(chance: NDArray[np.float64], label: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, ties counted half; None where one class is missing.

    Source:
        Mann and Whitney 1947: the chance that a positive is ranked above a negative.
    """
    positives, negatives = int(label.sum()), int((~label).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(chance)
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(chance: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """Mean negative log-likelihood, nats."""
    clipped = chance.clip(1e-7, 1 - 1e-7)
    return float(-np.where(label, np.log(clipped), np.log1p(-clipped)).mean())


def calibration_bins(
    chance: NDArray[np.float64], label: NDArray[np.bool_], num_bins: int = 10
) -> list[dict[str, Any]]:
    """Mean predicted and observed rate in bins of equal size."""
    order = np.argsort(chance, kind="stable")
    return [
        {"predicted": float(chance[part].mean()), "observed": float(label[part].mean()), "n": len(part)}
        for part in np.array_split(order, num_bins)
        if len(part)
    ]


@torch.no_grad()
def predict(
    ensemble: Ensemble, steps: Steps, past: torch.Tensor, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """The ensemble's mean chance of each shown item's responses, and what happened.

    In a log without slates each item acted on gets a random one beside it, which was not acted on.

    Returns:
        Chances float64 [n, K], responses bool [n, K], items int64 [n].
    """
    items, responses = steps.items, steps.responses
    if ensemble.members[0].shape.mode == "next_item":
        generator = torch.Generator().manual_seed(seed)
        others = torch.randint(ensemble.members[0].shape.num_items, items.shape, generator=generator)
        items = torch.cat([items, others], 2)
        responses = torch.cat([responses, torch.zeros_like(responses)], 2)
    features = ensemble.past_features(past)
    total = torch.zeros(())
    for member in ensemble.members:
        table = member.item_table()
        states = member.run(table, steps.items, steps.responses, steps.values, features)[:, :-1]
        context = member.context(states, features[:, None].expand(-1, states.shape[1], -1))[steps.known]
        parts = [
            member.outlook(c, *table, i).chances
            for c, i in zip(torch.split(context, 2048), torch.split(items[steps.known], 2048), strict=True)
        ]
        total = total + torch.cat(parts)
    shown = items[steps.known] >= 0
    chances = (total / len(ensemble.members))[shown]
    return (
        chances.double().numpy(),
        (responses[steps.known][shown] > 0).numpy(),
        items[steps.known][shown].numpy(),
    )


def task_report(
    ensemble: Ensemble, train: Steps, test: Steps, past: torch.Tensor, seed: int
) -> dict[str, dict[str, Any]]:
    """AUC, log loss and calibration per task on later sessions, beside the rivals' where the log has slates.

    Rivals are the base rate, the item's own rate (popularity) and boosted trees.
    """
    chances, labels, items = predict(ensemble, test, past, seed)
    by_name = {"simulator": chances}
    if ensemble.members[0].shape.mode == "slate":
        num_items = ensemble.members[0].shape.num_items
        rates, _ = item_rates(train, num_items)
        base = train.responses[train.known][train.items[train.known] >= 0].double().mean(0).numpy()
        by_name |= {
            "base_rate": np.broadcast_to(base, labels.shape),
            "item_rate": rates[items],
            "boosted_trees": boosted_chances(train, test, num_items, seed),
        }
    out: dict[str, dict[str, Any]] = {part: {} for part in ("auc", "rival_auc", "log_loss", "calibration")}
    out["calibration_error"] = {}
    for task, name in enumerate(ensemble.tasks.names):
        label = labels[:, task]
        scores = {who: auc(chance[:, task], label) for who, chance in by_name.items()}
        out["auc"][name] = scores.pop("simulator")
        out["rival_auc"][name] = scores
        out["log_loss"][name] = {who: log_loss(chance[:, task], label) for who, chance in by_name.items()}
        bins = calibration_bins(chances[:, task], label)
        out["calibration"][name] = bins
        out["calibration_error"][name] = sum(
            abs(bin_["predicted"] - bin_["observed"]) * bin_["n"] for bin_ in bins
        ) / max(len(label), 1)
    return out


def trust(log_losses: Mapping[str, Mapping[str, float]], gaps: Mapping[str, float]) -> str:
    """How far the simulator can be believed, and for what, in words.

    Args:
        log_losses: By task, of the simulator and its rivals; see ``task_report``.
        gaps: See ``drift``.
    """
    sentences = []
    ahead = {
        task: all(losses["simulator"] < loss for who, loss in losses.items() if who != "simulator")
        for task, losses in log_losses.items()
        if len(losses) > 1
    }
    if any(ahead.values()):
        names = ", ".join(task for task, won in ahead.items() if won)
        sentences.append(f"It tells the next response better than items' rates and boosted trees: {names}.")
    if not all(ahead.values()):
        names = ", ".join(task for task, won in ahead.items() if not won)
        sentences.append(f"A simple rival tells the next response as well or better: {names}.")
    if not ahead:
        sentences.append("The log shows no slates: it knows which item comes next, not what is turned down.")
    far = [f"{name.removeprefix('return/')} {gap:+.0%}" for name, gap in gaps.items() if abs(gap) > AGREES]
    if far:
        sentences.append(
            f"Replayed, logged sessions come out different ({', '.join(far)}): believe no return."
        )
    else:
        sentences.append(
            f"Replayed, logged sessions come out within {AGREES:.0%}: believe the order of policies, and returns "
            "near the log's; those far above it are guesses."
        )
    return " ".join(sentences)


def drift(
    ensemble: Ensemble, log: SessionLog, test: Steps, history_length: int, num_sessions: int, seed: int
) -> dict[str, float]:
    """Relative gap of simulated from logged session statistics: length, and return of each task.

    Logged slates, drawn at random, are replayed from the test sessions' starts. In a log without slates only the
    length can be compared: what the users saw is unknown.
    """
    sessions = test.session.numpy()[:num_sessions]
    past = torch.from_numpy(log.past[sessions])
    weights = torch.from_numpy(ensemble.tasks.weights)
    generator = torch.Generator().manual_seed(seed)
    pool = test.items[test.known]
    pool = pool[(pool >= 0).all(-1)]
    player = StatelessPlayer(lambda count: pool[torch.randint(len(pool), (count,), generator=generator)])
    returns, lengths = play_simulated(
        replace(ensemble, pessimism=0.0), player, past, weights, history_length, generator
    )
    logged = test.known[: len(past)].sum(1).float().mean()
    gaps = {"length": float(lengths.float().mean() / logged - 1)}
    if log.slates is not None:
        counts = test.responses[: len(past)].sum((1, 2))  # [S, K]
        worth = test.values[: len(past)].sum((1, 2))
        paid = torch.from_numpy(ensemble.tasks.pays_value)
        truth = torch.where(paid, worth, counts).mean(0)
        for task, name in enumerate(ensemble.tasks.names):
            played = float(returns[:, task].mean().abs())
            gaps[f"return/{name}"] = played / max(float(truth[task]), 1e-9) - 1 if truth[task] > 0 else 0.0
    return gaps
