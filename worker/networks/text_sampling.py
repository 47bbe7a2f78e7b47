"""What families that write text, or choose tokens, share of their declarations. No torch here."""

from typing import Annotated

from pydantic import Field

from worker.networks.params import SamplingParams

Temperature = Annotated[float, Field(ge=0, le=10, description="0: always the likeliest token")]
TopK = Annotated[int, Field(ge=0, description="only among the k likeliest; 0: all")]
TopP = Annotated[
    float,
    Field(gt=0, le=1, description="only among the likeliest that hold this much probability"),
]


class TextSampling(SamplingParams):
    """How text is chosen."""

    max_tokens: int = Field(256, ge=1, le=100_000, description="tokens made at the most")
    temperature: Temperature = 0.8
    top_k: TopK = 0
    top_p: TopP = 0.9
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        [], max_length=16, description="texts that end a sample; they are not part of it"
    )
