"""What a request may say, what an answer says, and how a refusal reads."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve.config import ServeConfig

Identifier = Annotated[str, Field(min_length=1, max_length=512)]
TaskWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_PLAIN = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "finite_number": "a finite number",
}
_LONGEST_ECHO = 80  # characters of a wrong value that its refusal repeats


@dataclass
class RequestError(ValueError):
    """A request that cannot be answered; its text names the field."""

    message: str
    status: int = 422

    def __str__(self) -> str:
        return self.message


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Act(_Message):
    """One behaviour of the session so far."""

    item_id: Identifier
    behaviour: Identifier


class RecommendRequest(_Message):
    """Who asks, what happened in the session, and what may be shown."""

    user_id: Identifier | None = Field(None, description="A user of the log; others count as never seen.")
    history: list[Act] = Field([], description="The session so far, oldest first.")
    k: int | None = Field(None, description="Items wanted; None takes the length the policy learned with.")
    task_weights: dict[str, TaskWeight] | None = Field(
        None, description="Share of each task; those not named count 0. None takes the policy's own."
    )
    candidates: list[Identifier] | None = Field(None, description="Items that may be shown; None is all.")
    exclusions: list[Identifier] = Field([], description="Items that may not be shown.")


class RecommendedItem(_Message):
    """One position of the slate."""

    item_id: str
    propensity: float = Field(
        description="Probability of this item at this position given those above it, in (0, 1]."
    )
    scores: dict[str, float] = Field(description="Score by task; only differences between items mean much.")


class RecommendResponse(_Message):
    """A slate with all that its later evaluation needs."""

    request_id: str
    policy_version: str
    known_user: bool = Field(description="Whether the user's past was known.")
    items: list[RecommendedItem] = Field(description="In the order of their positions.")
    propensity: float = Field(description="Product of the items' propensities; 0 where below 1e-308.")
    log_propensity: float = Field(description="Its natural logarithm, exact for every length.")


class Health(_Message):
    """The state of a replica."""

    status: Literal["ok"]
    policy_version: str
    encoder: str  # the language model's name, a tuned one's too
    encoder_sha256: str | None  # of its weights


def parse_request(body: bytes, limits: ServeConfig) -> RecommendRequest:
    """A request from its JSON.

    Raises:
        RequestError: It is no JSON, has an unknown or malformed field, or a list over its limit.
    """
    try:
        request = RecommendRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error
    _check_length("history", len(request.history), limits.max_history)
    _check_length("candidates", len(request.candidates or ()), limits.max_list)
    _check_length("exclusions", len(request.exclusions), limits.max_list)
    if request.k is not None and not 1 <= request.k <= limits.max_k:
        raise RequestError(f"k: expected 1 to {limits.max_k}, got {request.k}.")
    return request


def _check_length(field: str, length: int, most: int) -> None:
    if length > most:
        raise RequestError(f"{field}: expected at most {most} entries, got {length}.")


def _refusal(error: ValidationError) -> RequestError:
    """The first thing wrong, as one sentence."""
    first = error.errors(include_url=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "json_invalid":
        return RequestError(f"body: expected JSON, {context['error']}.", status=400)
    field = _field(first["loc"])
    if kind == "extra_forbidden":
        known = ", ".join(Act.model_fields if "history" in field else RecommendRequest.model_fields)
        return RequestError(f"{field}: expected one of {known}, got an unknown field.")
    if kind == "missing":
        return RequestError(f"{field}: expected a value, got none.")
    return RequestError(f"{field}: expected {_expected(kind, first, context)}, got {_echo(first['input'])}.")


def _field(location: tuple[int | str, ...]) -> str:
    """``history[2].item_id``; the body itself where there is no field."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".") or "body"


def _expected(kind: str, first: Any, context: dict[str, Any]) -> str:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "greater_than_equal":
        return f"at least {context['ge']:g}"
    if kind == "string_too_short":
        return f"at least {context['min_length']} characters"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    return re.sub(r"^Input should be ", "", str(first["msg"]))


def _echo(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_ECHO else text[:_LONGEST_ECHO] + "..."
