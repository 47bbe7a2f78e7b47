"""Work on many objects at once, so that transfers, hashing and writing overlap."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 8


def in_order(
    work: Callable[[T], R], items: Iterable[T], *, threads: int = THREADS
) -> Generator[R, None, None]:
    """Yield the result of each item in the order of the items, several at once.

    The items are read by the caller's thread, a few ahead of the results, so that memory stays
    flat. The first error is raised in place of its result; what has not begun then is dropped.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="objects") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
