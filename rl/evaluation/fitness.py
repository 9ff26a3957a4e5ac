"""Should reinforcement learning be used on this log at all? A test for each thing that it needs, with numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encoders.sessions import LoggedSlates, SessionLog
from rl.evaluation.delay import MAX_P, DelayTest
from rl.evaluation.intervals import Estimate
from rl.evaluation.report import Returns, Setting, weighted_gain

MIN_STEPS = 3  # decisions that a session needs for the first to matter to the last
MIN_SHARE = 0.5  # of sessions that should have so many, and of slates whose propensity should be known
MEANT = 0.0006  # share of later rewards' variance: no is said only where so small an effect would be found
SIMPLE = ("clone", "greedy", "bandit")  # what reinforcement learning has to beat to be worth its trouble


@dataclass(frozen=True)
class Check:
    """One thing that reinforcement learning needs, and whether it is there."""

    question: str
    answer: Literal["yes", "no", "unknown"]
    reason: str
    figures: Mapping[str, float | int | None]

    def to_json(self) -> dict[str, Any]:
        """As the report has it."""
        return {**vars(self)}


def log_checks(log: SessionLog, delay: DelayTest | None) -> list[Check]:
    """What the log offers: slates, propensities, long sessions, effects that come later; and what that promises."""
    length, later = length_check(log), delay_check(delay)
    return [slate_check(log), propensity_check(log.slates), length, later, promise_check(log, length, later)]


def slate_check(log: SessionLog) -> Check:
    """Does the log say what was shown, so that an ignored item counts?"""
    question = "Does the log have slates?"
    behaviours = len(log.items)
    if log.slates is None:
        reason = "No: it holds what users did, not what they were shown; the simulator must guess what they ignored."
        return Check(question, "no", reason, {"slates": 0, "behaviours": behaviours})
    answered = int(log.slates.responses.sum())
    share = answered / max(behaviours, 1)
    reason = f"Yes: {len(log.slates.items):,} slates, to which {share:.0%} of the {behaviours:,} behaviours respond."
    return Check(question, "yes", reason, {"slates": len(log.slates.items), "share_of_behaviours": share})


def propensity_check(slates: LoggedSlates | None) -> Check:
    """Does it say how likely each slate was, and was there a choice?"""
    question = "Does it have propensities?"
    if slates is None:
        return Check(
            question, "no", "No: without slates there are none, so nothing can be estimated off-policy.", {}
        )
    shown = slates.items >= 0
    known = shown.any(axis=1) & ~(shown & np.isnan(slates.propensities)).any(axis=1)
    share = float(known.mean())
    varied = known & (np.where(shown, slates.propensities, 1.0) < 1.0).any(axis=1)
    explored = float(varied.sum() / max(known.sum(), 1))
    figures = {"share_known": share, "share_explored": explored}
    if share < MIN_SHARE:
        return Check(
            question, "no", f"No: only {share:.0%} of the slates have one for every item shown.", figures
        )
    if explored < MIN_SHARE:
        reason = f"No: known for {share:.0%} of the slates, but only {explored:.0%} of those left anything to chance."
        return Check(question, "no", reason, figures)
    reason = f"Yes: for {share:.0%} of the slates, of which {explored:.0%} could have been otherwise."
    return Check(question, "yes", reason, figures)


def length_check(log: SessionLog) -> Check:
    """Are there several decisions in a session?"""
    steps = session_steps(log)
    steps = steps[steps > 0]
    unit = "items acted on" if log.slates is None else "slates"
    if not len(steps):
        return Check("Are sessions long enough?", "no", "No: no session has a decision.", {})
    share, median = float((steps >= MIN_STEPS).mean()), float(np.median(steps))
    figures: Mapping[str, float | int | None] = {
        "median_steps": median,
        "share_long": share,
        "sessions": len(steps),
    }
    text = f"{share:.0%} of {len(steps):,} sessions have {MIN_STEPS} or more {unit} (median {median:g})"
    if share < MIN_SHARE:
        return Check("Are sessions long enough?", "no", f"No: only {text}.", figures)
    return Check("Are sessions long enough?", "yes", f"Yes: {text}.", figures)


def session_steps(log: SessionLog) -> NDArray[np.int64]:
    """Decisions of each session: slates shown, or without slates the distinct items acted on. int64 [S]."""
    if log.slates is not None:
        return np.bincount(log.slates.session, minlength=len(log))
    session = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    pairs = np.unique(np.stack([session, log.items], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=len(log))


def delay_check(delay: DelayTest | None) -> Check:
    """Does what is shown now change what comes later?"""
    question = "Do slates have delayed effects?"
    if delay is None:
        reason = "Unknown: that takes slates, and sessions with several of them."
        return Check(question, "unknown", reason, {})
    figures: Mapping[str, float | int | None] = {
        "p": delay.p_value,
        "share_explained": delay.share_explained,
        "share_detectable": delay.share_detectable,
        "slates": delay.num_slates,
        "sessions": delay.num_sessions,
    }
    text = (
        f"what a slate shows explains {delay.share_explained:.2%} of what the session earns after it, beyond what went "
        f"before (p = {delay.p_value:.2g}, {delay.num_slates:,} slates)"
    )
    if delay.p_value < MAX_P:
        return Check(question, "yes", f"Yes: {text}.", figures)
    seen = f"an effect that explains {delay.share_detectable:.2%} or more would be found four times in five"
    if delay.share_detectable > MEANT:
        return Check(question, "unknown", f"Unknown: {text}. Too few slates: only {seen}.", figures)
    return Check(question, "no", f"Not shown: {text}; {seen}.", figures)


def promise_check(log: SessionLog, length: Check, delay: Check) -> Check:
    """Can looking ahead pay here? Said of the log alone, before anything is trained.

    A policy learns to look ahead only from what the log shows of later effects. Where none are shown by sessions enough
    to show them, there are none, or the slates vary too little; the test cannot tell which.
    """
    question = "Can looking ahead pay on this log?"
    sessions = int((session_steps(log) > 0).sum())
    figures = {"sessions": sessions}
    if length.answer == "no":
        reason = "Not to be expected: few sessions go on for long enough. Clone or greedy will do as well."
        return Check(question, "no", reason, figures)
    if delay.answer == "unknown" and not delay.figures:
        return Check(question, "unknown", "Unknown: log what is shown, then this can be told.", figures)
    if delay.answer == "unknown":
        reason = (
            f"Unknown: {sessions:,} sessions are too few to show whether slates change what comes after them."
        )
        return Check(question, "unknown", reason, figures)
    if delay.answer == "no":
        reason = (
            f"Not to be expected: {sessions:,} sessions show no later effect of a slate. Either there is none, and "
            "clone or greedy will do as well, or it takes a logging policy that varies more."
        )
        return Check(question, "no", reason, figures)
    reason = f"Yes: {sessions:,} sessions show that slates change what comes after them."
    return Check(question, "yes", reason, figures)


def policy_checks(returns: Returns, setting: Setting, where: str) -> list[Check]:
    """Is the candidate better than the clone, greedy and the bandit? One check for each that was played.

    Args:
        returns: Signed return of each session per task, by policy. float [S, K].
        setting: Names the candidate.
        where: Ends the sentence, as in "in the held-out simulator".
    """
    if setting.candidate not in returns:
        return []
    return [
        _better(
            setting.candidate,
            rival,
            weighted_gain(returns[setting.candidate], returns[rival], setting),
            where,
        )
        for rival in SIMPLE
        if rival in returns
    ]


def _better(candidate: str, rival: str, gain: Estimate, where: str) -> Check:
    question = f"Is {candidate} better than {rival}?"
    figures: Mapping[str, float | int | None] = {"difference": gain.mean, "low": gain.low, "high": gain.high}
    if gain.low is None or gain.high is None:
        return Check(question, "unknown", "Unknown: too few sessions were played for an interval.", figures)
    text = f"{gain.mean:+.4g} a session {where} (interval {gain.low:+.4g} to {gain.high:+.4g})"
    if gain.low > 0:
        return Check(question, "yes", f"Yes: {text}.", figures)
    if gain.high < 0:
        return Check(question, "no", f"No, it is worse: {text}.", figures)
    return Check(question, "no", f"Not shown: {text}.", figures)


def build_fitness(log: Sequence[Check | Mapping[str, Any]], policies: Sequence[Check]) -> dict[str, Any]:
    """The report's ``fitness``: the checks, and in one sentence how many of them hold."""
    parts = {
        "log": [check.to_json() if isinstance(check, Check) else dict(check) for check in log],
        "policies": [check.to_json() for check in policies],
    }
    checks = [*parts["log"], *parts["policies"]]
    kept = sum(check["answer"] == "yes" for check in checks)
    return {"advice": f"{kept} of {len(checks)} things that speak for it hold.", **parts}
