"""Fitting a response model to resampled steps: likelihood, early stop on other users, calibration."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.simulator.calibration import bound_sums, calibrate
from rl.simulator.config import SimulatorConfig
from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import ResponseShape
from rl.simulator.steps import Steps

_GUESS_WEIGHT = 0.5  # of the loss of what is guessed without innovations
_LARGEST_GRADIENT = 2.0  # norm
_DIRECTION_RATE = 0.2  # of the learning rate: tastes stay near the first directions of the texts
_PRIOR_TRIES = 20  # that an item's logged rate starts from, at the rate of all
_MAX_BOUND = 2000  # sessions whose running sums set the bounds


@dataclass(frozen=True)
class FitReport:
    """How a member's fit went. Losses are nats a step on held-back users."""

    loss: float
    best_epoch: int
    epochs: int


def step_losses(
    model: ResponseModel, steps: Steps, past: Tensor, item_log_rate: Tensor, num_negatives: int | None
) -> Tensor:
    """Negative log-likelihood a step of: response, tasks given it, log values, leaving. float32 [4].

    In a log without slates the response is a choice over the catalogue: sampled softmax with the sampling
    probability taken out (Bengio and Senecal 2008), exact where ``num_negatives`` is None.
    """
    table = model.item_table()
    states = model.run(table, steps.items, steps.responses, steps.values, past)
    known, total = steps.known, steps.known.sum().clamp_min(1)
    # Most is padding: only states that a known step starts from or ends in are read.
    reached = nn.functional.pad(known, (1, 0), value=True)  # [S, T + 1]
    place = reached.flatten().cumsum(0).view(reached.shape) - 1
    start, end = place[:, :-1][known], place[:, 1:][known]  # [n]
    told, own = states[reached], past[reached.nonzero()[:, 0]]
    context = model.context(told, own)
    before, items = context[start], steps.items[known]  # [n, Z], [n, L]
    responses, values = steps.responses[known], steps.values[known]
    scores = model.scores(before, *table, items)
    answered = responses.amax(-1)  # [n, L]
    if model.shape.mode == "slate":
        response = _response_loss(model, scores, items, answered)
    else:
        response = _choice_loss(model, before, *table, items[:, 0], item_log_rate, num_negatives)
    funnel = _funnel_loss(model, scores, responses, answered)
    if model.training and model.shape.innovations:
        guess = model.scores(model.context(told, own, informed=False)[start], *table, items)
        funnel = funnel + _GUESS_WEIGHT * _funnel_loss(model, guess, responses, answered)
        if model.shape.mode == "slate":
            response = response + _GUESS_WEIGHT * _response_loss(model, guess, items, answered)
    return torch.stack(
        [
            response / total,
            funnel / total,
            _value_loss(model, scores, responses, values) / total,
            _leave_loss(model, context[end], steps.left[known]) / total,
        ]
    )


def _response_loss(model: ResponseModel, scores: Tensor, items: Tensor, answered: Tensor) -> Tensor:
    logit = scores[..., 0] + model.positions(items.shape[1])
    loss = nn.functional.binary_cross_entropy_with_logits(logit, answered, reduction="none")
    return (loss * (items >= 0)).sum()


def _choice_loss(
    model: ResponseModel,
    context: Tensor,
    vectors: Tensor,
    biases: Tensor,
    chosen: Tensor,
    item_log_rate: Tensor,
    num_negatives: int | None,
) -> Tensor:
    query = model.queries(context)[:, 0]  # the response head's
    vectors = model.matched(vectors)
    own = (query * vectors[chosen]).sum(-1) + biases[chosen, 0]
    loss: Tensor
    if num_negatives is None or num_negatives >= model.shape.num_items:
        loss = (torch.logsumexp(query @ vectors[:-1].T + biases[:, 0], -1) - own).sum()
        return loss
    drawn = torch.multinomial(item_log_rate.exp(), num_negatives, replacement=True)  # [m]
    others = query @ vectors[drawn].T + biases[drawn, 0] - item_log_rate[drawn] - np.log(num_negatives)
    others = others.masked_fill(drawn == chosen[:, None], -torch.inf)
    loss = (torch.logsumexp(torch.cat([own[:, None], others], 1), -1) - own).sum()
    return loss


def _funnel_loss(model: ResponseModel, scores: Tensor, responses: Tensor, answered: Tensor) -> Tensor:
    total = scores.new_zeros(())
    for task, parent in enumerate(model.shape.parents):
        reached = answered if parent < 0 else responses[..., parent]
        loss = nn.functional.binary_cross_entropy_with_logits(
            scores[..., 1 + task], responses[..., task], reduction="none"
        )
        total = total + (loss * reached).sum()
    return total


def _value_loss(model: ResponseModel, scores: Tensor, responses: Tensor, values: Tensor) -> Tensor:
    """Gamma likelihood with unit shape (an exponential): its mean is fitted, whatever the true distribution."""
    tasks = len(model.shape.parents)
    scale = torch.tensor(model.shape.value_scale, device=scores.device)
    log_mean = scores[..., 1 + tasks :].clamp(-10, 10)
    told = (responses > 0) & (values > 0)
    loss = log_mean + values / scale * torch.exp(-log_mean)
    return 0.1 * (loss * told).sum()


def _leave_loss(model: ResponseModel, context: Tensor, left: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(
        model.leaving(context), left.float(), reduction="sum"
    )


def fit_member(
    shape: ResponseShape,
    item_features: Tensor,
    item_texts: Tensor,
    steps: Steps,
    past: Tensor,
    held_back: NDArray[np.bool_],
    config: SimulatorConfig,
    seed: int,
    resample: bool = True,
) -> tuple[ResponseModel, FitReport]:
    """Fit one response model.

    Args:
        shape: Its sizes.
        item_features: Fixed features of the catalogue. float32 [N, feature_width].
        item_texts: What is compared of it, unit vectors. float32 [N, likeness_width].
        steps: Sessions to learn from, S of them.
        past: Fixed features of each session's past, and its text. float32 [S, past_width + likeness_width].
        held_back: Sessions kept for the early stop, none of whose users are learned from. bool [S].
        config: Optimiser settings.
        seed: Of initial weights, batches and negatives.
        resample: Learn from as many sessions, drawn with replacement: members then differ by what the log leaves open,
            and not by their seeds alone.
    """
    torch.manual_seed(seed)
    dice = np.random.default_rng(seed)
    model = ResponseModel(shape, item_features, item_texts)
    learn, hold = np.flatnonzero(~held_back), torch.from_numpy(np.flatnonzero(held_back))
    if resample:
        learn = dice.choice(learn, len(learn))
    log_rate = _item_log_rate(steps, shape.num_items)
    if shape.mode == "next_item":
        model.base_score.copy_(log_rate)  # decay then pulls towards popularity, not towards all items alike
    _start_at_rates(model, steps)
    _note_item_rates(model, steps.rows(torch.from_numpy(np.unique(learn))))
    report = _descend_to_best(model, steps, past, (learn, hold), log_rate, config, dice)
    model.eval().requires_grad_(False)
    latest = torch.from_numpy(np.unique(learn)[-_MAX_BOUND:])
    bound_sums(model, steps.rows(latest), past[latest], config.reach)
    calibrate(model, steps.rows(hold), past[hold])
    return model, report


def _descend_to_best(
    model: ResponseModel,
    steps: Steps,
    past: Tensor,
    split: tuple[NDArray[np.int64], Tensor],
    log_rate: Tensor,
    config: SimulatorConfig,
    dice: np.random.Generator,
) -> FitReport:
    """Learn from the first rows, and keep the weights that were best on the others."""
    learn, hold = split
    optimiser = _optimiser(model, config)
    batches = max(1, -(-len(learn) // config.batch_sessions))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=config.num_epochs * batches,
        pct_start=0.1,
    )
    best, best_loss, best_epoch, epoch = copy.deepcopy(model.state_dict()), float("inf"), 0, 0
    for epoch in range(config.num_epochs):
        model.train()
        dice.shuffle(learn)
        for chosen in np.array_split(learn, batches):
            rows = torch.from_numpy(chosen)
            losses = step_losses(model, steps.rows(rows), past[rows], log_rate, config.num_negatives)
            _descend(model, optimiser, losses.sum())
            schedule.step()
        held = float(held_back_losses(model, steps, past, hold, log_rate, config).sum())
        if held < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(model.state_dict()), held, epoch
        elif epoch - best_epoch >= config.patience:
            break
    model.load_state_dict(best)
    return FitReport(best_loss, best_epoch, epoch + 1)


def _item_log_rate(steps: Steps, num_items: int) -> Tensor:
    """Log share of the steps' items, each counted once more than it was seen. float32 [N]."""
    rate = torch.bincount(steps.items[steps.known].flatten().clamp_min(0), minlength=num_items).float()
    return torch.log((rate + 1) / (rate + 1).sum())


def _descend(model: ResponseModel, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
    optimiser.step()


def held_back_losses(
    model: ResponseModel, steps: Steps, past: Tensor, rows: Tensor, log_rate: Tensor, config: SimulatorConfig
) -> Tensor:
    """``step_losses`` on other users, without dropout. float32 [4]."""
    model.eval()
    with torch.no_grad():
        parts = [
            step_losses(model, steps.rows(r), past[r], log_rate, config.num_negatives)
            for r in torch.split(rows, 1024)
        ]
    return torch.stack(parts).mean(0)


def _start_at_rates(model: ResponseModel, steps: Steps) -> None:
    """Set the level so that the untrained model predicts the logged rates."""
    responses = steps.responses[steps.known]
    shown = (steps.items[steps.known] >= 0).float()
    answered = responses.amax(-1)

    def logit(share: Tensor) -> Tensor:
        return torch.logit(share.clamp(1e-4, 1 - 1e-4))

    with torch.no_grad():
        model.level.bias.zero_()
        model.level.bias[0] = logit((answered * shown).sum() / shown.sum().clamp_min(1))
        for task, parent in enumerate(model.shape.parents):
            reached = answered if parent < 0 else responses[..., parent]
            model.level.bias[1 + task] = logit(responses[..., task].sum() / reached.sum().clamp_min(1))
        left = steps.left[steps.known].float().mean()
        model.leave.bias.fill_(float(logit(left)))


def _note_item_rates(model: ResponseModel, steps: Steps) -> None:
    """Set the items' logged rates, those of rare items near the mean of all."""
    shown = (steps.items >= 0) & steps.known[..., None]  # [S, T, L]
    items, responses = steps.items[shown], steps.responses[shown]  # [n], [n, K]
    for task, parent in enumerate(model.shape.parents):
        chance = torch.ones_like(responses[:, 0]) if parent < 0 else responses[:, parent]
        tried = torch.bincount(items, chance, model.shape.num_items)
        done = torch.bincount(items, chance * responses[:, task], model.shape.num_items)
        mean = done.sum() / tried.sum().clamp_min(1)
        model.item_rates[:, task] = (done + _PRIOR_TRIES * mean) / (tried + _PRIOR_TRIES)


def _optimiser(model: ResponseModel, config: SimulatorConfig) -> torch.optim.Optimizer:
    tables = [model.item, model.item_bias, model.text_item.weight, model.text_bias.weight]
    ids = {id(p) for p in (*tables, model.tastes.directions)}
    rest = [p for p in model.parameters() if id(p) not in ids]
    groups = [
        {"params": tables, "weight_decay": config.item_decay},
        {"params": rest, "weight_decay": config.weight_decay},
        {
            "params": [model.tastes.directions],
            "weight_decay": 0.0,
            "lr": _DIRECTION_RATE * config.learning_rate,
        },
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)
