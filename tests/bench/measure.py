"""One row of the benchmark, and how its two sides are measured: in turns, as medians."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Measure:
    """A comparison of `ours` with `baseline`, in `unit`, and the bound on their ratio.

    `spread` is the lowest and the highest ratio of any one pair.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    at_least: float | None = None
    at_most: float | None = None
    spread: tuple[float, float] | None = None
    pairs: int | None = None

    @property
    def kept(self) -> bool:
        """Whether the ratio is within its bound."""
        return (self.at_least is None or self.ratio >= self.at_least) and (
            self.at_most is None or self.ratio <= self.at_most
        )

    @property
    def bound(self) -> str:
        """The bound, for people."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"

    def row(self) -> dict[str, object]:
        """The row as plain data, for `BENCH_JSON`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def compare(
    name: str,
    unit: str,
    ours: Callable[[], float],
    baseline: Callable[[], float],
    *,
    pairs: int,
    **bound: float,
) -> Measure:
    """Measure both sides `pairs` times, one after the other; `bound` is at_least or at_most."""
    turns = [(ours(), baseline()) for _ in range(pairs)]
    return summary(name, unit, turns, **bound)


def summary(name: str, unit: str, turns: Sequence[tuple[float, float]], **bound: float) -> Measure:
    """The row of pairs (ours, baseline): medians of each side, their ratio, the spread of ratios.

    Medians, because a busy machine slows single turns down and nothing speeds one up.
    """
    ours, baseline = (median(side) for side in zip(*turns, strict=True))
    ratios = [mine / base for mine, base in turns]
    return Measure(
        name,
        ours,
        baseline,
        unit,
        ours / baseline,
        spread=(min(ratios), max(ratios)),
        pairs=len(turns),
        **bound,
    )


def against_limit(name: str, unit: str, value: float, limit: float) -> Measure:
    """A figure that has a fixed limit: the baseline is the limit, which it must not exceed."""
    return Measure(name, value, limit, unit, value / limit, at_most=1)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of `work()`."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
