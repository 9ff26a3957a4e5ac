"""When training must stop: numbers that are none, a loss that explodes, a policy that no longer tries, a simulator
that is exploited. Each complaint is a sentence with the reason and a remedy.
"""

from collections.abc import Mapping, Sequence

from rl.policy.config import PPOSettings

NOT_FINITE = "not_finite"  # the learner's metric: whether it refused an update of the round


def complaint_after_round(learned: Mapping[str, float], settings: PPOSettings) -> str | None:
    """What is wrong with a round of learning, or None.

    Args:
        learned: The learner's metrics ``not_finite``, ``policy_loss``, ``vf_loss`` and ``entropy``.
        settings: ``max_loss`` and ``min_entropy``.
    """
    if learned[NOT_FINITE] > 0:
        return (
            "the loss or its gradient is not a finite number; the weights stay as they were before. "
            "Lower rl.ppo.learning_rate, or look for rewards that are not finite."
        )
    loss = max(abs(learned["policy_loss"]), abs(learned["vf_loss"]))
    if loss > settings.max_loss:
        return (
            f"the loss exploded: expected at most rl.ppo.max_loss = {settings.max_loss:g}, got {loss:.3g}. "
            "Lower rl.ppo.learning_rate."
        )
    if learned["entropy"] < settings.min_entropy:
        return (
            f"the policy no longer tries anything: expected at least rl.ppo.min_entropy = "
            f"{settings.min_entropy:g} nats a position, got {learned['entropy']:.3g}. Raise rl.ppo.entropy."
        )
    return None


def complaint_after_look(curve: Sequence[Mapping[str, float]], settings: PPOSettings) -> str | None:
    """Whether the training simulator is being exploited, or None.

    Its return has risen since the best look at the held-out simulator, whose return has fallen at each of the
    last two looks by more than ``exploit_drop`` of that best.

    Args:
        curve: Looks in order, with ``iteration``, ``training`` and ``held_out/weighted``.
        settings: ``exploit_drop``.
    """
    if len(curve) < 3:
        return None
    best = max(curve, key=lambda look: look["held_out/weighted"])
    peak = best["held_out/weighted"]
    scale = max(abs(peak), abs(peak - curve[0]["held_out/weighted"]))
    for look in curve[-2:]:
        fallen = peak - look["held_out/weighted"] > settings.exploit_drop * scale
        if not (fallen and look["training"] > best["training"] and look["iteration"] > best["iteration"]):
            return None
    last = curve[-1]
    return (
        f"the simulator is being exploited: since round {best['iteration']:.0f} its return rose from "
        f"{best['training']:.3f} to {last['training']:.3f} while the held-out simulator's fell from "
        f"{peak:.3f} to {last['held_out/weighted']:.3f}. Raise rl.simulator.pessimism or rl.ppo.kl."
    )
