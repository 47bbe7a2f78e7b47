"""Streams of a sampler: rows go in while there is room, finished samples come out.

A step of many small operations gains little from a second CPU thread, and beside other work it
loses, because every operation waits for its last thread. So networks that say `parallel_streams`
run one stream in each thread instead, every one with micro-batches of its own. No sample depends on
its stream, just as none depends on its neighbours.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
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
    return threads.most() if network.parallel_streams and device.type == "cpu" else 1


def run_streams(sampler: Sampler, rows: Iterator[Row]) -> Iterator[Made]:
    """Yield what each step finishes; a row is taken once there is room for it."""
    size, most = sampler.sampling.micro_batch, most_streams(sampler.network, sampler.device)
    first = list(islice(rows, most * size)) if most > 1 else []
    if len(first) > size:
        yield from _several(sampler, first, rows)
    else:
        yield from _alone(sampler.steps(chain(first, rows)), sampler)


def _several(sampler: Sampler, first: list[Row], rows: Iterator[Row]) -> Iterator[Made]:
    """Several streams, which share rows: each may take what another has left."""
    size = sampler.sampling.micro_batch
    waiting = _Rows()
    left = waiting.add(first)  # not finished
    streams = [sampler.steps(waiting) for _ in range(math.ceil(left / size))]
    for made in _together(streams):
        left -= len(made)
        yield made
        left += waiting.add(islice(rows, len(streams) * size - left))


class _Rows(Iterator[Row]):
    """Rows that wait for a stream; unlike a generator it may have some after it had none."""

    def __init__(self) -> None:
        self._waiting = deque[Row]()

    def add(self, rows: Iterable[Row]) -> int:
        """Add rows; return how many."""
        before = len(self._waiting)
        self._waiting.extend(rows)
        return len(self._waiting) - before

    def __next__(self) -> Row:
        try:
            return self._waiting.popleft()
        except IndexError:
            raise StopIteration from None


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


def _together(streams: list[Iterator[Made]]) -> Iterator[Made]:
    """The steps of several streams, as they end."""
    with _single_threads(len(streams)) as pool:
        running = {pool.submit(next, stream, None): stream for stream in streams}
        while running:
            for step in wait(running, return_when=FIRST_COMPLETED).done:
                stream, made = running.pop(step), step.result()
                if made is not None:
                    yield made
                    running[pool.submit(next, stream, None)] = stream


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
