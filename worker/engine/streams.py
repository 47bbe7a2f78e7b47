"""Streams of a sampler: rows go in while there is room, finished samples come out.

A step of many small operations gains little from a second CPU thread, and beside other work it
loses, because every operation waits for its last thread. So networks that say so run one stream in
each thread instead, every one with micro-batches of its own. No sample depends on its stream, just
as none depends on its neighbours.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain, islice
from weakref import WeakKeyDictionary

import torch

from worker.engine import threads
from worker.engine.device import deterministic
from worker.engine.sampler import Sampler
from worker.engine.threads import ThreadChoice
from worker.networks.network import Finished, Network, Row

Made = list[Finished]

_choices: WeakKeyDictionary[Network, ThreadChoice] = WeakKeyDictionary()


def most_streams(network: Network, device: torch.device) -> int:
    """How many streams of this network run at once."""
    return threads.most() if device.type == "cpu" and network.has_parallel_streams() else 1


def run_streams(sampler: Sampler, rows: Iterator[Row]) -> Iterator[Made]:
    """Yield what each step finishes; a row is taken once there is room for it."""
    size, most = sampler.sampling.micro_batch, most_streams(sampler.network, sampler.device)
    held = size * sampler.network.read_ahead  # rows of a stream
    first = list(islice(rows, most * held)) if most > 1 else []
    if len(first) > size:
        count = min(most, math.ceil(len(first) / size))
        yield from _several([_Stream(sampler) for _ in range(count)], first, rows, held=held)
    else:
        yield from _alone(sampler.steps(chain(first, rows)), sampler)


class _Stream:
    """A stream with rows of its own; `left` of them are not finished."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self._rows, self.left = sampler, _Rows(), 0
        self._steps = sampler.steps(self._rows)

    def add(self, row: Row) -> None:
        self._rows.append(row)
        self.left += 1

    def step(self) -> Made | None:
        """What the next step finishes; None once no row is left."""
        made = next(self._steps, None)
        if made is None and self._rows:  # that came as it ended
            self._steps = self._sampler.steps(self._rows)
            return []
        return made


class _Rows(deque[Row], Iterator[Row]):
    """Rows that wait for their stream; unlike a generator it may have some after it had none."""

    def __next__(self) -> Row:
        try:
            return self.popleft()
        except IndexError:
            raise StopIteration from None

    def __iter__(self) -> Iterator[Row]:
        return self


def _several(
    streams: list[_Stream], first: list[Row], rows: Iterator[Row], *, held: int
) -> Iterator[Made]:
    """Several streams, each with at most `held` rows; the next row goes to the one with fewest."""
    _deal(first, streams)
    for stream, made in _together(streams):
        if made is None:
            streams.remove(stream)
            continue
        stream.left -= len(made)
        yield made
        _deal(islice(rows, len(streams) * held - sum(each.left for each in streams)), streams)


def _deal(rows: Iterable[Row], streams: list[_Stream]) -> None:
    for row in rows:
        min(streams, key=lambda each: each.left).add(row)


def _alone(stream: Iterator[Made], sampler: Sampler) -> Iterator[Made]:
    """The steps of one stream, with as many threads as were found to be fastest."""
    # the choice outlasts a group of small tasks
    if sampler.network not in _choices:
        _choices[sampler.network] = ThreadChoice(None if sampler.device.type == "cpu" else 1)
    while True:
        with _choices[sampler.network].step():
            made = next(stream, None)
        if made is None:
            return
        yield made


def _together(streams: Sequence[_Stream]) -> Iterator[tuple[_Stream, Made | None]]:
    """The steps of several streams, as they end; None is a stream's last."""
    with _single_threads(len(streams)) as pool:
        running = {pool.submit(stream.step): stream for stream in streams}
        while running:
            for step in wait(running, return_when=FIRST_COMPLETED).done:
                stream, made = running.pop(step), step.result()
                yield stream, made
                if made is not None:
                    running[pool.submit(stream.step)] = stream


@contextmanager
def _single_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose arithmetic uses no others."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, "stream", initializer=_use_one_thread) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)  # parts of the setting are the process's


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    deterministic()  # how denormal numbers are treated is set for each thread
