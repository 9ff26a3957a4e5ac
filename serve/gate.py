"""Which policies may serve: those that the gate promotes, and those that a person allows by version."""

from rl.policy.bundle import Bundle


class NotPromotedError(ValueError):
    """The gate refused the policy and nobody allowed it."""


def check_verdict(bundle: Bundle, allowed: str | None, key: str = "serve.allow_unpromoted") -> None:
    """Let a policy pass that the gate promotes, or that is allowed by its version.

    Args:
        bundle: With the gate's verdict.
        allowed: The version that may serve whatever the gate said; None allows no such.
        key: The argument that the message tells to pass.

    Raises:
        NotPromotedError: Neither holds; the message gives the gate's first reason and the argument.
    """
    if bundle.verdict.get("promote") is True or allowed == bundle.version:
        return
    reason = next(iter(bundle.verdict.get("reasons", [])), "it gives no reason.")
    raise NotPromotedError(
        f"serve: the gate does not promote policy {bundle.version}: {reason} "
        f"To serve it all the same, pass {key}={bundle.version}"
    )
