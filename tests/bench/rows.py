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
    in_folder: bool = False  # it takes an empty folder and no more

    def load(self) -> Comparison:
        """The function, which takes the run."""
        found: Comparison = getattr(import_module(f"tests.bench.{self.module}"), self.function)
        return (lambda bench: found(bench.made_folder(self.function))) if self.in_folder else found


ROWS = {
    "help": Row("command_line", "help_against_click"),
    "job-list": Row("command_line", "job_list_against_sqlalchemy"),
    "small-jobs": Row("small_jobs", "one_image_jobs"),
    "one-job": Row("images", "one_job"),
    "one-job-bf16": Row("images", "one_job_in_bf16"),
    "one-worker": Row("images", "one_worker"),
    "memory": Row("images", "memory"),
    "enqueue": Row("small_jobs", "enqueueing"),
    "choosing": Row("choosing", "choosing"),
    "claiming": Row("choosing", "claiming", quick=False),
    "listing": Row("listing", "listing"),
    "bytes": Row("sizes", "sizes"),
    "s3": Row("downloads", "downloads"),
    "contention": Row("contention", "contention", quick=False),
    "text-gpt": Row("texts", "gpt", quick=False),
    "text-hf": Row("texts", "hf", quick=False),
    "wavenet": Row("sounds", "clips", quick=False),
    "gpt-training": Row("training", "gpt_against_a_plain_loop", in_folder=True),
}
FLEET = {
    "fleet": Row("fleet", "paced"),
    "fleet-capacity": Row("fleet", "capacity"),
    "fleet-killed": Row("fleet", "killed"),
}
