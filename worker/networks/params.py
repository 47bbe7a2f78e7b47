"""Parameters of training and sampling that families share and extend. No torch here."""

from typing import Annotated, Self

from pydantic import Field

from worker.specs import Params

PREVIEW_TOKENS = 100


class TrainingParams(Params):
    """Training parameters of every family."""

    batch_size: int = Field(64, ge=1, le=65_536, description="samples a training step")
    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    finetune_rate: float = Field(0.1, gt=0, le=1, description="share of lr that fine-tuning uses")
    validate_every: int = Field(
        0,
        ge=0,
        description="steps between validations; 0: about ten in a job, never under 50 steps",
    )
    preview_every: int = Field(
        0, ge=0, description="steps between previews; 0: up to four in a job, as time allows"
    )


class SamplingParams(Params):
    """Sampling parameters of every family."""

    micro_batch: int = Field(
        64, ge=1, le=4096, description="samples made at once; part of what makes bytes repeatable"
    )

    @property
    def samples_per_label(self) -> int:
        """How many consecutive samples share a label, where labels are taken in turn."""
        return 1

    def source_indices(self, index: int) -> tuple[int, ...]:
        """Which of a job's source images sample `index` is made from."""
        return (index,)

    def for_preview(self) -> Self:
        """The same settings for shorter samples, so that previews do not hold up training."""
        return self

    def check_images(self, size: int | None) -> None:
        """Raise `Refused` where these settings do not suit source images of `size` x `size`.

        None: the job has no source images.
        """


Temperature = Annotated[float, Field(ge=0, le=10, description="0: always the likeliest token")]
TopK = Annotated[int, Field(ge=0, description="choose among the k likeliest only; 0: all")]
TopP = Annotated[
    float,
    Field(gt=0, le=1, description="choose among the likeliest that hold this much probability"),
]


class TextSampling(SamplingParams):
    """How the tokens of a text are chosen."""

    max_tokens: int = Field(256, ge=1, le=100_000, description="most tokens of a sample")
    temperature: Temperature = 0.8
    top_k: TopK = 0
    top_p: TopP = 0.9
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        [], max_length=16, description="texts that end a sample; they are not part of it"
    )

    def for_preview(self) -> Self:
        """At most 100 tokens."""
        return self.model_copy(update={"max_tokens": min(self.max_tokens, PREVIEW_TOKENS)})
