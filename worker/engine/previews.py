"""Previews: pages of samples that a network in training makes; and the speed of sampling."""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from worker.conversations import Conversation
from worker.engine.run import Training, derive_seed
from worker.engine.sampler import Sampler
from worker.media import find_medium
from worker.media.base import Page
from worker.networks.network import Network, Output, Row

TIMED = 3  # micro-batches whose time is measured
SLOW_S = 0.5  # a page that takes longer is the measurement

Report = tuple[str, Path, str]  # name, path, media type


class LastPage(NamedTuple):
    """The page of a finished version: the file, the samples on it, and the measured speed."""

    report: Report
    samples: list[Output]
    samples_per_second: float


AfterStep = Callable[[], None]  # called after each step of the network; may raise to stop it


def _nothing() -> None:
    pass


def preview_page(
    network: Network, training: Training, *, name: str, after_step: AfterStep = _nothing
) -> Report:
    """A page of shorter samples, as it is made during training."""
    sampler = _sampler(network, training, after_step, micro_batch=_page_of(network).micro_batch)
    sampler.sampling = sampler.sampling.for_preview()
    return page(sampler, training.folder, name=name, seed=_seed(training))[0]


def last_page(
    network: Network,
    training: Training,
    *,
    after_step: AfterStep = _nothing,
    after_rows: AfterStep = _nothing,
) -> LastPage:
    """A page of the finished version's samples, and how many it makes a second.

    `after_rows` is called after each of the page's `micro_batches`.
    """
    began = time.perf_counter()
    sampler = _sampler(network, training, after_step, micro_batch=_page_of(network).micro_batch)
    seed = _seed(training)
    report, made = page(sampler, training.folder, name="samples", seed=seed, after_rows=after_rows)
    page_s = time.perf_counter() - began
    speed = time_sampling(_sampler(network, training, after_step), page_s=page_s)
    return LastPage(report, made, speed)


def micro_batches(network: Network) -> int:
    """The micro-batches of a page."""
    shown = _page_of(network)
    return -(-len(_rows(network, shown)) // shown.micro_batch)


def page(
    sampler: Sampler, folder: Path, *, name: str, seed: int, after_rows: AfterStep = _nothing
) -> tuple[Report, list[Output]]:
    """Write a page of samples to `folder`, in their medium's format; return it and the samples.

    The rows of the page are classes or example prompts, if there are any.
    """
    shape = sampler.network.shape
    medium = find_medium(shape.media)
    rows, made = _rows(sampler.network, medium.page, seed), list[Output]()
    remaining = iter(rows)
    while some := list(islice(remaining, sampler.sampling.micro_batch)):
        made += sampler.make(some)
        after_rows()
    path = folder / f"{name}{medium.page.suffix}"
    shown = [_with_prompt(row, output) for row, output in zip(rows, made, strict=True)]
    medium.write_page(shown, shape, path)
    return (path.name, path, medium.page.media_type), made


def _with_prompt(row: Row, output: Output) -> Output:
    """An answer after the conversation that asked for it; any other output as it is."""
    if isinstance(row.prompt, Conversation) and isinstance(output, str):
        return f"{row.prompt.text}assistant: {output}"
    return output


def _rows(network: Network, shown: Page, seed: int = 0) -> list[Row]:
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


def time_sampling(sampler: Sampler, *, page_s: float) -> float:
    """Samples a second that `sampler` makes.

    Measured over a few micro-batches after one to warm up; where samples take long, as texts do, by
    the `page_s` seconds that its page took, in smaller micro-batches.
    """
    if page_s > SLOW_S:
        return len(_rows(sampler.network, _page_of(sampler.network))) / page_s
    size, labels = sampler.sampling.micro_batch, len(sampler.network.shape.labels)
    rows = [Row(index, index % labels if labels else None) for index in range(size)]
    sampler.make(rows)
    began = time.perf_counter()
    for _ in range(TIMED):
        sampler.make(rows)
    return TIMED * size / (time.perf_counter() - began)


def _page_of(network: Network) -> Page:
    return find_medium(network.shape.media).page


def _sampler(
    network: Network, training: Training, after_step: AfterStep, **settings: int
) -> Sampler:
    sampling = training.family.sampling(**settings)
    return Sampler(network, sampling, precision=training.precision, after_step=after_step)


def _seed(training: Training) -> int:
    return derive_seed(training.seed, "preview")
