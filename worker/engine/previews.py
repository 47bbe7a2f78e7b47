"""What a network makes now, on one page to look at; and how fast it makes it."""

import time
from itertools import islice
from pathlib import Path

from worker.engine.generate import Sampler
from worker.media import find_medium
from worker.media.base import Page
from worker.networks.network import Network, Output, Row

TIMED = 3  # micro-batches to measure the speed by


def page(sampler: Sampler, folder: Path, *, name: str) -> tuple[str, Path, str]:
    """Make a page of samples in `folder`, as their medium shows them: its name, path, media type.

    A row is a class or example prompt where there are any.
    """
    shape = sampler.network.shape
    medium = find_medium(shape.media)
    remaining, outputs = iter(_rows(sampler.network, medium.page)), list[Output]()
    while some := list(islice(remaining, sampler.sampling.micro_batch)):
        outputs += sampler.make(some)
    path = folder / f"{name}{medium.page.suffix}"
    medium.write_page(outputs, shape, path)
    return path.name, path, medium.page.media_type


def _rows(network: Network, shown: Page) -> list[Row]:
    """What to make for each place of the page, at most twice its rows."""
    most, columns = 2 * shown.rows, shown.columns
    if network.examples:
        asked = [prompt for prompt in network.examples[:most] for _ in range(columns)]
        return [Row(index, prompt=prompt) for index, prompt in enumerate(asked)]
    if network.shape.labels:
        classes = [
            label for label in range(len(network.shape.labels))[:most] for _ in range(columns)
        ]
        return [Row(index, label) for index, label in enumerate(classes)]
    return [Row(index) for index in range(shown.rows * columns)]


def time_sampling(sampler: Sampler, *, limit_s: float = 2.0) -> float:
    """Samples a second that `sampler` makes, over a few micro-batches after one to warm up.

    The first counts where it alone takes long, as it does for text.
    """
    size, labels = sampler.sampling.micro_batch, len(sampler.network.shape.labels)
    rows = [Row(index, index % labels if labels else None) for index in range(size)]
    began, made = time.perf_counter(), len(sampler.make(rows))
    if time.perf_counter() - began < limit_s / TIMED:
        began, made = time.perf_counter(), 0
        while made < TIMED * size:
            made += len(sampler.make(rows))
    return made / (time.perf_counter() - began)
