"""Synthetic logs with known truth, after the settings that the Open Bandit Pipeline publishes."""

from dataclasses import dataclass

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    weight = np.exp(x - x.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Bandit:
    """One action a round, binary reward."""

    action: np.ndarray  # [n]
    reward: np.ndarray  # [n]
    logging: np.ndarray  # [n, A] probabilities
    target: np.ndarray  # [n, A]
    expected: np.ndarray  # [n, A] true mean reward
    model: np.ndarray  # [n, A] a wrong reward model's

    @property
    def weights(self) -> np.ndarray:
        rows = np.arange(len(self.action))
        return self.target[rows, self.action] / self.logging[rows, self.action]

    @property
    def logged(self) -> np.ndarray:
        return self.model[np.arange(len(self.action)), self.action][:, None]

    @property
    def target_mean(self) -> np.ndarray:
        return (self.target * self.model).sum(axis=1, keepdims=True)

    @property
    def truth(self) -> float:
        return float((self.target * self.expected).sum(axis=1).mean())


def bandit(seed: int, rounds: int = 10_000, actions: int = 10, width: int = 5, beta: float = 3.0) -> Bandit:
    """Contexts standard normal, logistic mean reward with a linear interaction, a linear softmax logging policy.

    The pipeline's synthetic bandit: 10 actions, 5 context features, inverse temperature 3, 10,000 rounds.
    """
    dice = np.random.RandomState(seed)
    context = dice.normal(size=(rounds, width))
    context_effect, action_effect = dice.uniform(-1, 1, size=width), dice.uniform(-1, 1, size=actions)
    interaction = dice.uniform(-1, 1, size=(width, actions))
    logits = (context @ context_effect)[:, None] + action_effect + context @ interaction
    expected = 1 / (1 + np.exp(-(logits - logits.mean()) / logits.std()))
    logging = softmax(beta * (context @ dice.uniform(-1, 1, size=(width, actions))) / width)
    action = (logging.cumsum(axis=1) > dice.uniform(size=(rounds, 1))).argmax(axis=1)
    reward = dice.binomial(1, expected[np.arange(rounds), action]).astype(float)
    model = np.clip(expected + 0.3 * dice.normal(size=(1, actions)) * expected, 0, 1)
    return Bandit(action, reward[:, None], logging, softmax(4 * expected), expected, model)


@dataclass(frozen=True)
class Ranking:
    """Slates drawn by Plackett-Luce from contextual scores; clicks that depend on the items above (cascade)."""

    slates: np.ndarray  # [n, L]
    rewards: np.ndarray  # [n, L, 1]
    logging: np.ndarray  # [n, L] of each item given those above
    target: np.ndarray  # [n, L]
    model: np.ndarray  # [n, L, 1] predicted reward of the item shown
    target_model: np.ndarray  # [n, L, 1] its mean under the target's choice given those above
    choices: np.ndarray  # [n, L, A] the target's choice given those above
    model_table: np.ndarray  # [n, L, A]
    truth: float


def ranking(seed: int, rounds: int = 20_000, actions: int = 5, length: int = 3, width: int = 2) -> Ranking:
    """The pipeline's synthetic slates: few unique actions, length 3, Plackett-Luce policies of linear scores."""
    dice = np.random.RandomState(seed)
    context = dice.normal(size=(rounds, width))
    scores = context @ dice.uniform(-1, 1, size=(width, actions))
    other = scores + context @ dice.uniform(-1, 1, size=(width, actions)) * 0.7
    appeal = 1 / (1 + np.exp(-(context @ dice.uniform(-1, 1, size=(width, actions)))))
    slates, logging, _ = _draw(scores, length, dice)
    target, choices = _along(other, slates)
    clicks = _clicks(appeal, slates)
    rewards = dice.binomial(1, clicks).astype(float)[..., None]
    model_table = np.repeat(0.8 * appeal[:, None, :], length, axis=1)
    rows = np.arange(rounds)[:, None]
    model = model_table[rows, np.arange(length), slates][..., None]
    target_model = (choices * model_table).sum(axis=-1)[..., None]
    drawn = [_clicks(appeal, _draw(other, length, dice)[0]).sum(axis=1).mean() for _ in range(20)]
    return Ranking(
        slates, rewards, logging, target, model, target_model, choices, model_table, float(np.mean(drawn))
    )


def _clicks(appeal: np.ndarray, slates: np.ndarray) -> np.ndarray:
    """An item's own appeal, less where the item above is appealing."""
    own = np.take_along_axis(appeal, slates, axis=1)
    above = np.concatenate([np.zeros((len(own), 1)), own[:, :-1]], axis=1)
    return own * (1 - 0.5 * above)


def _draw(scores: np.ndarray, length: int, dice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    slates = np.argsort(-(scores + dice.gumbel(size=scores.shape)), axis=1)[:, :length]
    probabilities, choices = _along(scores, slates)
    return slates, probabilities, choices


def _along(scores: np.ndarray, slates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each item given those above, and of all choices there. [n, L], [n, L, A]."""
    left, rows, choices = scores.astype(float).copy(), np.arange(len(scores)), []
    for position in range(slates.shape[1]):
        choices.append(softmax(left))
        left[rows, slates[:, position]] = -np.inf
    stacked = np.stack(choices, axis=1)
    return np.take_along_axis(stacked, slates[..., None], axis=2)[..., 0], stacked
