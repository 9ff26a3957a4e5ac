"""Settings of the response model and of the simulator."""

from pydantic import BaseModel, ConfigDict, Field


class SimulatorConfig(BaseModel):
    """How responses and leaving are learned from the log, and played back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_members: int = Field(
        4,
        ge=1,
        description="Models of the training ensemble, each fitted to sessions drawn with replacement.",
    )
    num_heldout_members: int = Field(2, ge=1, description="Models of the simulator kept for evaluation.")
    heldout_fraction: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="Share of training users that only the held-out one sees, beside validation's sessions.",
    )
    pessimism: float = Field(
        1.0, ge=0, description="Standard deviations of the ensemble taken off the reward."
    )
    max_steps: int = Field(
        40, ge=1, description="Slates a simulated session has at most; longer ones are cut."
    )
    max_sessions: int = Field(20_000, ge=10, description="Latest training sessions fitted on at most.")
    num_epochs: int = Field(20, ge=1, description="Passes over the sessions at most.")
    patience: int = Field(10, ge=1, description="Epochs without gain on held-back users that end the fit.")
    batch_sessions: int = Field(128, ge=1, description="Sessions a step of the optimiser.")
    learning_rate: float = Field(5e-3, gt=0, description="Peak of the one-cycle schedule.")
    item_decay: float = Field(
        10.0, ge=0, description="AdamW weight decay of item tables: strong, or it overfits."
    )
    weight_decay: float = Field(0.1, ge=0, description="AdamW weight decay of the rest.")
    text_width: int = Field(
        12,
        ge=1,
        description="Leading directions of the text embeddings that are read; more drown what matters.",
    )
    taste_width: int = Field(
        12,
        ge=0,
        description="Directions of taste in which items are compared with the past and with what was taken; 0: none.",
    )
    likeness_width: int = Field(
        64,
        ge=1,
        description="Directions of the text embeddings, those that set categories apart, that tastes are learned from.",
    )
    reach: float = Field(
        1.0,
        gt=0,
        description="Multiple of what logged sessions summed up, beyond which its logarithm counts.",
    )
    item_width: int = Field(8, ge=1, description="Width of the item vectors.")
    sum_width: int = Field(24, ge=1, description="Width of each running sum.")
    innovations: bool = Field(
        False,
        description="Sum up what was not expected as well: what a step does may hang on where the user stands.",
    )
    hidden: int = Field(32, ge=1, description="Width of the trunk.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout on the state.")
    num_negatives: int = Field(256, ge=1, description="Sampled items a step, for logs without slates.")

    @property
    def compared_width(self) -> int:
        """Directions of the texts that are compared: none without tastes."""
        return self.likeness_width if self.taste_width else 0
