"""What the samples of an evaluation are asked for, and how many are made."""

from worker.data.dataset import LocalDataset, Shape
from worker.evaluation.writings import prompted
from worker.media import find_medium
from worker.networks.family import Family

NOTHING = "nothing"
LABELS = "the label of a held-out item each"
IN_TURN = "each label in turn"
CAPTIONS = "the caption of a held-out item each"
PROMPTS = "the prompt of a held-out document each"


def asked_for(family: Family, shape: Shape, dataset: LocalDataset, split: str) -> str:
    """Sample i is asked for what held-out item i is, where model and data know such a thing."""
    labelled = bool(dataset.manifest["shape"]["labels"])
    if not find_medium(family.media).pictured:
        return PROMPTS if next(prompted(dataset, split), None) else NOTHING
    if family.takes_prompts:
        return CAPTIONS
    if shape.labels:
        return LABELS if labelled else IN_TURN
    return NOTHING


def count_of(asked: int | None, family: Family, dataset: LocalDataset, split: str) -> int:
    """How many samples to make where nobody says: as many as the split has, up to a limit."""
    medium = find_medium(family.media)
    most = medium.evaluated
    if asked is not None:
        return asked
    if not medium.pictured:
        return min(most, sum(1 for _ in prompted(dataset, split)) or most)
    held_out: int = dataset.manifest["counts"][split]
    return max(1, min(most, held_out))
