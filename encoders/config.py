"""Settings of the language model and of the texts it reads."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Pooling = Literal["mean", "cls", "last"]
Precision = Literal["fp32", "bf16"]


class EncoderConfig(BaseModel):
    """Which model embeds items and histories, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="Hugging Face name or local path."
    )
    pooling: Literal["auto"] | Pooling = Field("auto", description="auto reads the model's own files.")
    precision: Literal["auto"] | Precision = Field(
        "auto", description="auto takes bf16 where the CPU or GPU has it."
    )
    item_prompt: str | None = Field(
        None, description="Put before each item's text; None takes the model's own for documents."
    )
    past_prompt: str | None = Field(
        None, description="Put before each past's text; None takes the model's own for queries."
    )
    max_tokens: int = Field(128, ge=8, le=8192, description="Longer texts are cut here and counted.")
    batch_tokens: int = Field(2048, ge=64, description="Tokens a batch, padding included.")
    num_actors: int | None = Field(
        None, ge=1, description="Ray Data actors that hold the model; None takes one a CPU, or GPU."
    )
    num_cpus: int = Field(
        1,
        ge=1,
        description="CPUs an actor, one torch thread each; more only for models too large to hold twice.",
    )
    num_gpus: float = Field(0.0, ge=0, description="GPUs an actor; 0 encodes on CPU.")
    history_items: int = Field(
        20, ge=1, description="Items of a user's past that its text names, the latest."
    )
    images: str | None = Field(
        None, description="Folder or URI that the item table's image paths start from, for CLIP models."
    )
    store: str | None = Field(
        None, description="Folder or URI of stored vectors, for several runs; None keeps them in the run."
    )
    tuned: bool = Field(
        False, description="Embed with what `slatewise finetune` made of the model in this run."
    )


class FinetuneConfig(BaseModel):
    """How `finetune` tunes the encoder to the log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["full", "lora"] = Field(
        "full", description="Tune all weights, or small matrices beside them (needs the extra lora)."
    )
    lora_rank: int = Field(16, ge=1, description="Rank of LoRA's matrices.")
    num_steps: int = Field(300, ge=1, description="Steps at most.")
    batch_histories: int = Field(32, ge=2, description="Histories with their next item, a step and worker.")
    batch_pairs: int = Field(128, ge=2, description="Pairs of items of one session, a step and worker.")
    learning_rate: float = Field(
        1e-4, gt=0, description="Highest, after a tenth of the steps; then falling to 0."
    )
    temperature: float = Field(0.05, gt=0, description="Cosines are divided by it.")
    popularity_correction: float = Field(
        1.0,
        ge=0,
        le=1,
        description="1 makes a batch's items stand for the whole catalogue; 0 leaves popular ones out.",
    )
    language_modelling: float = Field(
        0.0,
        ge=0,
        description="Weight of masked-token loss (encoders) or next-token loss (decoders); 0 is off.",
    )
    max_tokens: int = Field(64, ge=8, description="Histories are cut here while tuning.")
    pairs_per_session: int = Field(2, ge=1, description="Moments, and pairs of items, drawn from a session.")
    check_every: int = Field(
        50, ge=1, description="Steps between checks on validation sessions, and checkpoints."
    )
    patience: int = Field(3, ge=1, description="Checks without gain after which tuning stops.")
    num_judged: int = Field(
        2000, ge=1, description="Later moments judged before and after; a quarter of it a check."
    )
    num_workers: int = Field(1, ge=1, description="Ray Train workers; 1 tunes in this process, without Ray.")
