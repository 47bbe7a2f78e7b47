"""Models that were kept as they were written load, and make the samples that they made then."""

import base64
import hashlib
import json

import numpy as np
import pytest
import torch

from tests.kept_models import keeping
from tests.kept_models.keeping import CASES, FOLDER, SAMPLES, folder_of, machine, make_samples
from worker.engine.weights import load
from worker.families import families, find_family
from worker.networks.version_folder import format_of, read_record

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
KEPT = sorted(path.parent.name for path in FOLDER.glob(f"*/{SAMPLES}"))
# what rounding on another processor may change; after a near-tie, a text or a sound is another one
LEVELS, LOUDNESS, SHARE = 1.0, 33.0, 0.75  # of 255, of 32767, and of the samples


def agree(media: str, was: bytes, now: bytes) -> bool:
    """Whether two samples are the same but for rounding."""
    if media == "text" or len(was) != len(now):
        return was == now
    kind, most = ("<i2", LOUDNESS) if media == "audio" else ("u1", LEVELS)
    values = [np.frombuffer(each, kind).astype(float) for each in (was, now)]
    return bool(np.abs(values[0] - values[1]).mean() <= most)


def require_same(name: str, here: dict[str, str]) -> None:
    """Make a kept model's samples again, and compare them as far as the machines allow."""
    kept = json.loads((FOLDER / name / SAMPLES).read_text("utf-8"))
    family, network = load(FOLDER / name, device=CPU)
    number = format_of(read_record(FOLDER / name))
    sampling = family.sampling_settings(kept["sampling"], number, what=name)
    found = make_samples(family, network, sampling)
    if kept["machine"] == here:
        assert [hashlib.sha256(each).hexdigest() for each in found] == kept["sha256"]
    was = [base64.b64decode(each) for each in kept["samples"]]
    same = [agree(family.media, *each) for each in zip(was, found, strict=True)]
    assert sum(same) >= SHARE * len(same), same


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_model_loads_and_makes_its_samples_again(name):
    require_same(name, machine())


def test_on_another_machine_values_are_compared():
    require_same("gan-1", {"processor": "another"})


def test_other_samples_are_noticed(monkeypatch):
    monkeypatch.setattr(keeping, "SEED", 6)
    for here in (machine(), {}):
        with pytest.raises(AssertionError):
            require_same("gan-1", here)


def test_every_family_is_kept_in_every_format_that_it_had():
    assert {name for name, _ in CASES.values()} == families().keys()
    for case, (name, _) in CASES.items():
        for number in range(1, find_family(name).format + 1):
            assert folder_of(case, number).name in KEPT, "run python -m tests.kept_models.keeping"
