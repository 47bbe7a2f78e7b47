"""Networks whose samples end at different times."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial

from worker.networks.network import Draw, Draws, Made, Network, Output, Row
from worker.networks.params import SamplingParams


class StreamingNetwork(Network):
    """A network that gives `stream`, from which `sample` follows."""

    @abstractmethod
    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Made]]:
        """See `Network.stream`."""

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """As `stream`, in the rows' order."""
        unique = {row.index: row for row in rows}
        draws = partial(Draw, draw.seed, device=draw.device)
        steps = self.stream(iter(unique.values()), draws, sampling)
        made = {row.index: output for step in steps for row, output in step}
        return [made[row.index] for row in rows]
