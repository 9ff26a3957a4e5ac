"""Advantages: how much better than predicted it went, per task, and which position earned it."""

import torch
from torch import Tensor


def generalised_advantages(
    rewards: Tensor, values: Tensor, ended: Tensor, leaving: Tensor, discount: float, decay: float
) -> Tensor:
    """Generalised advantage estimates, each task for itself, without the luck of who left.

    A session that ends loses all that was still to come, by the throw of a die whose chance the simulator knows.
    What the throw did beyond its chance, times what the state was worth, is 0 on average whatever was shown: a
    control variate.

    Args:
        rewards: Reward of each step. float32 [B, T, K].
        values: Predicted return of each observation; that after an ended step belongs to the next session
            and is not used. float32 [B, T + 1, K].
        ended: Whether the session ended with the step. bool [B, T].
        leaving: The chance of that, given what was shown and how it was answered; where it is not known, ``ended``
            itself, which takes out nothing. float32 [B, T].
        discount: Worth of a reward one step later, in (0, 1].
        decay: Lambda, in [0, 1].

    Returns:
        In units of reward. float32 [B, T, K].

    Source:
        Schulman et al. 2016, arXiv:1506.02438, eq. 16; control variates as in Greensmith et al. 2004, JMLR 5.
    """
    goes_on = (~ended).to(rewards.dtype).unsqueeze(-1) * discount  # [B, T, 1]
    luck = discount * (leaving - ended.to(rewards.dtype)).unsqueeze(-1)  # [B, T, 1]
    surplus = rewards + goes_on * values[:, 1:] - values[:, :-1] - luck * values[:, :-1]  # [B, T, K]
    advantages = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[:, 0])  # [B, K]
    for step in reversed(range(rewards.shape[1])):
        running = surplus[:, step] + decay * goes_on[:, step] * running
        advantages[:, step] = running
    return advantages


def position_advantages(
    advantages: Tensor, rewards: Tensor, expected_rewards: Tensor, task_weights: Tensor
) -> Tensor:
    """Each task's weighted advantage of each position: the slate's, less what the other positions earned by luck.

    What a position's item did not earn is taken out where the state predicts it: the surplus of every other
    position's immediate reward over its expectation. What comes later stays with all positions.

    Less noise, but a bias where items of a slate compete for the same response: a position then does not
    answer for what its item took from the others.

    Args:
        advantages: The slate's, per task. float32 [M, K].
        rewards: Immediate reward of each position. float32 [M, L, K].
        expected_rewards: Its prediction from the state alone. float32 [M, L, K].
        task_weights: float32 [M, K].

    Returns:
        float32 [M, L, K].
    """
    weights = task_weights.unsqueeze(1)  # [M, 1, K]
    surplus = (rewards - expected_rewards) * weights  # [M, L, K]
    return advantages.unsqueeze(1) * weights - (surplus.sum(1, keepdim=True) - surplus)


def clipped_objective(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """PPO's clipped objective of each position, to be maximised.

    Args:
        log_ratio: New minus old log-probability of the position's item. float32 [M, L].
        advantages: float32 [M, L].
        clip_range: Largest trusted ratio change, in (0, 1).

    Returns:
        float32 [M, L].

    Source:
        Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages)
