"""Previews: a page of samples that a network makes now; and the speed of sampling."""

import time
from itertools import islice
from pathlib import Path

from worker.engine.generate import Sampler
from worker.media import find_medium
from worker.media.base import Page
from worker.networks.network import Network, Output, Row

TIMED = 3  # micro-batches whose time is measured


def page(sampler: Sampler, folder: Path, *, name: str, seed: int) -> tuple[str, Path, str]:
    """Write a page of samples to `folder`, in their medium's format; return name, path, media type.

    The rows of the page are classes or example prompts, if there are any.
    """
    shape = sampler.network.shape
    medium = find_medium(shape.media)
    remaining, outputs = iter(_rows(sampler.network, medium.page, seed)), list[Output]()
    while some := list(islice(remaining, sampler.sampling.micro_batch)):
        outputs += sampler.make(some)
    path = folder / f"{name}{medium.page.suffix}"
    medium.write_page(outputs, shape, path)
    return path.name, path, medium.page.media_type


def _rows(network: Network, shown: Page, seed: int) -> list[Row]:
    """What to make for each place of the page, which may have up to twice its rows."""
    most, columns = 2 * shown.rows, shown.columns
    if network.examples:
        prompts = [prompt for prompt in network.examples[:most] for _ in range(columns)]
        return [Row(index, prompt=prompt, seed=seed) for index, prompt in enumerate(prompts)]
    if network.shape.labels:
        classes = range(len(network.shape.labels))[:most]
        labels = [label for label in classes for _ in range(columns)]
        return [Row(index, label, seed=seed) for index, label in enumerate(labels)]
    return [Row(index, seed=seed) for index in range(shown.rows * columns)]


def time_sampling(sampler: Sampler, *, limit_s: float = 2.0) -> float:
    """Samples a second that `sampler` makes, over a few micro-batches after one to warm up.

    A first micro-batch that takes long, as with text, is measured itself.
    """
    size, labels = sampler.sampling.micro_batch, len(sampler.network.shape.labels)
    rows = [Row(index, index % labels if labels else None) for index in range(size)]
    began, made = time.perf_counter(), len(sampler.make(rows))
    if time.perf_counter() - began < limit_s / TIMED:
        began, made = time.perf_counter(), 0
        while made < TIMED * size:
            made += len(sampler.make(rows))
    return made / (time.perf_counter() - began)
