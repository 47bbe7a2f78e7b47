"""Every comparison by name. Its function is imported when it runs, because torch loads slowly."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tests.bench.measure import Measure

Comparison = Callable[[Any], Measure | Iterable[Measure]]


@dataclass(frozen=True)
class Row:
    """Where a comparison is, and whether `--quick` includes it."""

    module: str
    function: str
    quick: bool = True

    def load(self) -> Comparison:
        """The function, which takes the run."""
        found: Comparison = getattr(import_module(f"tests.bench.{self.module}"), self.function)
        return found


ROWS = {
    "help": Row("command_line", "help_against_click"),
    "job-list": Row("command_line", "job_list_against_sqlalchemy"),
    "small-jobs": Row("small_jobs", "one_image_jobs"),
    "one-job": Row("images", "one_job"),
    "one-job-bf16": Row("images", "one_job_in_bf16", quick=False),
    "one-worker": Row("images", "one_worker"),
    "marks": Row("marks", "marks"),
    "ledger": Row("images", "ledger", quick=False),
    "memory": Row("images", "memory", quick=False),
    "enqueue": Row("small_jobs", "enqueueing"),
    "choosing": Row("choosing", "choosing"),
    "claiming": Row("choosing", "claiming", quick=False),
    "prompts": Row("prompts", "leases"),
    "listing": Row("listing", "listing"),
    "bytes": Row("sizes", "sizes"),
    "s3": Row("downloads", "downloads"),
    "contention": Row("contention", "contention", quick=False),
    "text-gpt": Row("texts", "gpt", quick=False),
    "text-hf": Row("texts", "hf", quick=False),
    "wavenet": Row("sounds", "clips", quick=False),
    "gpt-training": Row("training", "gpt_against_a_plain_loop"),
    "gan-training": Row("training", "gan_against_a_plain_loop"),
    "gpt-training-long": Row("training", "long_gpt_against_a_plain_loop", quick=False),
    "gan-training-long": Row("training", "long_gan_against_a_plain_loop", quick=False),
    "lora": Row("lora", "lora_against_peft", quick=False),
}
FLEET = {
    "fleet": Row("fleet", "paced"),
    "fleet-capacity": Row("fleet", "capacity"),
    "fleet-killed": Row("fleet", "killed"),
}
