"""How well a version predicts held-out data, row by row."""

import numpy as np
import pytest
import torch

from tests.evaluating import request_for
from tests.families.kit import Recorder
from worker.data.dataset import TRAIN, VALIDATION
from worker.evaluation import held_out
from worker.evaluation.held_out import HeldOut, held_out_losses
from worker.evaluation.stages import Stage
from worker.families import find_family
from worker.networks.version_folder import read_record

STAGE = Stage(Recorder(), "", 0, 100)


@pytest.mark.parametrize(
    "name", ["gpt", "hmm", "rnn", pytest.param("wavenet", marks=pytest.mark.slow)]
)
def test_the_rows_add_up_to_the_loss_of_the_whole_split(name, tmp_path):
    request = request_for(find_family(name), tmp_path)
    losses = held_out_losses(request, STAGE)
    network = request.network
    feed = type(network).feed(
        network.params, request.dataset, seed=0, files=request.folder / "files"
    )
    total = sum(len(data) for data, _ in feed.validation())
    assert len(losses.nll) == total
    metrics = network_losses(network, feed)
    assert losses.nll.sum() / losses.tokens.sum() == pytest.approx(metrics, rel=1e-4)
    assert read_record(request.files)["family"] == name


def network_losses(network, feed):
    """The mean loss, of batches of all their rows."""
    sums = counts = 0.0
    for data, labels in feed.validation():
        batch = held_out.Batch(
            torch.from_numpy(data),
            None if labels is None else torch.from_numpy(labels),
            held_out.Draw([(0, 0)]),
        )
        with torch.inference_mode():
            losses = network.validate(batch)
        count = float(losses.get("count", (data[:, 1:] >= 0).sum()))
        sums, counts = sums + float(losses["loss"]) * count, counts + count
    return sums / counts


def test_of_many_rows_evenly_spaced_ones_are_measured(tmp_path, monkeypatch):
    request = request_for(find_family("gpt"), tmp_path)
    monkeypatch.setattr(held_out, "MAX_ROWS", 5)
    assert len(held_out_losses(request, STAGE).nll) == 5


@pytest.mark.slow
def test_a_split_takes_the_place_of_the_validation_split(tmp_path):
    request = request_for(find_family("wavenet"), tmp_path)
    whole = request.dataset
    splits = np.array(whole.array("split"))
    splits[:7] = 2
    np.save(whole.folder / "split.npy", splits)
    view = HeldOut(tmp_path, whole, "test")
    assert np.flatnonzero(view.array("split") == VALIDATION).tolist() == [*range(7)]
    assert (view.array("split") == TRAIN).sum() == 57
    assert np.array_equal(view.array("labels"), whole.array("labels"))
