"""One row of the benchmark."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Measure:
    """A comparison of `ours` with `baseline`, in `unit`, and the bound on their ratio."""

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the ratio is within its bound."""
        return (self.at_least is None or self.ratio >= self.at_least) and (
            self.at_most is None or self.ratio <= self.at_most
        )

    def row(self) -> dict[str, object]:
        """The row as plain data, for `BENCH_JSON`."""
        return {key: value for key, value in asdict(self).items() if value is not None}
