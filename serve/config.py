"""Settings of the service."""

from pydantic import BaseModel, ConfigDict, Field


class ServeConfig(BaseModel):
    """Where the service listens and how it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to bind; loopback unless told otherwise.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the HTTP API.")
    num_replicas: int = Field(
        1, ge=1, description="Copies of the ranker, a core each; above 1 behind a proxy."
    )
    policy: str | None = Field(None, description="Run directory or bundle folder; None takes paths.run.")
    allow_unpromoted: str | None = Field(
        None, description="Policy version to serve although the gate refused it."
    )
    max_k: int = Field(100, ge=1, description="Longest slate a request may ask for.")
    max_history: int = Field(1000, ge=1, description="Most behaviours a request's history may hold.")
    max_list: int = Field(
        10_000, ge=1, description="Most candidates, and most exclusions, a request may name."
    )
    max_body_bytes: int = Field(
        1 << 20, ge=1, description="Largest request body, bytes; larger ones are refused unread."
    )
