"""Train on made, test on real: what a small classifier learns from samples.

Ravuri and Vinyals 2019, "Classification accuracy score for conditional generative models",
arXiv:1905.10887.
"""

import numpy as np
import torch

from worker.evaluation import judge
from worker.evaluation.judge import Labels, Pixels
from worker.evaluation.stages import Stage
from worker.metrics.samples import Flags

STEPS = 200  # of the classifier's training


def correct_after(
    pixels: Pixels,
    labels: Labels,
    *,
    test: Pixels,
    test_labels: Labels,
    classes: int,
    device: torch.device,
    stage: Stage,
) -> Flags:
    """Whether a classifier that is trained on labelled pictures names each test picture's class."""
    train, test_stage = stage.part("training a classifier", 0, 0.9), stage.part("testing", 0.9, 1)
    network = judge.train(
        pixels, labels, classes=classes, device=device, tick=train.tick, steps=STEPS
    )
    found: Flags = judge.look(network, test, test_stage.tick).labels == np.asarray(test_labels)
    return found
