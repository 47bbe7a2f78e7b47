"""What families that write text share of their declarations. No torch here."""

from typing import Annotated

from pydantic import Field

from worker.families import SamplingParams


class TextSampling(SamplingParams):
    """How text is chosen."""

    max_tokens: int = Field(256, ge=1, le=100_000, description="tokens made at the most")
    temperature: float = Field(0.8, ge=0, le=10, description="0: always the likeliest token")
    top_k: int = Field(0, ge=0, description="only among the k likeliest; 0: all")
    top_p: float = Field(
        0.9, gt=0, le=1, description="only among the likeliest that hold this much probability"
    )
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        [], max_length=16, description="texts that end a sample; they are not part of it"
    )
