"""A request for samples, and a sample. Knows no queue and no family by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.conversations import Conversation
from worker.feeds.source_images import SourceImages
from worker.networks.network import Network, Output, Row, SourceImage
from worker.networks.params import SamplingParams
from worker.specs import Prompt


@dataclass(frozen=True)
class Generation:
    """Samples `start` to `stop` of a generate job.

    `label` is the class number of all samples. Samples cycle through the `prompts`, through the
    `labels`, and through the `sources`, whose own classes apply if there is no `label`. With none
    of these, a network with labels cycles through its labels.
    """

    network: Network
    sampling: SamplingParams
    seed: int
    start: int
    stop: int
    label: int | None = None
    prompts: tuple[Prompt, ...] = ()
    precision: str = "fp32"
    sources: SourceImages | None = None
    labels: Sequence[int] = ()
    # by which tokens are drawn, of a text watermark
    watermark_key: bytes | None = field(default=None, repr=False)

    def row(self, index: int) -> Row:
        """The request for sample `index`."""
        images: tuple[SourceImage, ...] = ()
        if self.sources:
            found = map(self.sources.at, self.sampling.source_indices(index))
            own = self.label is None
            images = tuple(SourceImage(pix, label if own else self.label) for pix, label in found)
        prompt = self.prompts[index % len(self.prompts)].prompt if self.prompts else None
        label = self._label(index, images)
        return Row(index, label, prompt, images, self.seed, self.watermark_key)

    def _label(self, index: int, images: Sequence[SourceImage]) -> int | None:
        """The class of a sample; None between source images of two classes."""
        labels = len(self.network.shape.labels)
        if self.label is not None or not labels:
            return self.label
        if self.labels:
            return self.labels[index % len(self.labels)]
        if images:
            classes = {image.label for image in images}
            return classes.pop() if len(classes) == 1 else None
        return index // self.sampling.samples_per_label % labels


@dataclass(slots=True)
class Sample:
    """One sample and the request it answers."""

    index: int
    output: Output
    label: str | None
    prompt: str | Conversation | None
    custom_id: str | None
    micro_batch: int  # rows of the forward pass that made it
