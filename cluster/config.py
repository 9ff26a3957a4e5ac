"""Settings of the Ray connection."""

from pydantic import BaseModel, ConfigDict, Field


class ClusterConfig(BaseModel):
    """Which Ray to use. ``address`` None starts one on this machine, ``auto`` joins the running one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(
        None, description="Ray address; None starts a local Ray, auto joins a running one."
    )
    num_cpus: int | None = Field(
        None, ge=1, description="CPUs of a local Ray; None takes all of the machine."
    )
    dashboard_url: str = Field("http://127.0.0.1:8265", description="Where `submit` finds the job API.")
