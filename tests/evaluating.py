"""Evaluations of small networks, without a record or a store."""

from dataclasses import replace

import torch

from tests.families.kit import Recorder, dataset_for, small_sampling, train_small
from worker.engine.weights import load
from worker.evaluation import stored_judges
from worker.evaluation.asking import asked_for
from worker.evaluation.evaluate import evaluate, needs_judge
from worker.evaluation.judging import recipe_of, train_judge
from worker.evaluation.protocol import Protocol
from worker.evaluation.request import Request
from worker.evaluation.stages import Stage
from worker.files import digest_of

CPU = torch.device("cpu")


def request_for(family, folder, *, count=24, dataset=None, network=None, **changes):
    """A request to measure a version trained for a few steps, with everything in `folder`."""
    dataset = dataset or dataset_for(family, folder / "data")
    trained = network or train_small(family, dataset, folder / "training", max_steps=4).folder
    found, loaded = load(trained, device=CPU)
    (folder / "run").mkdir(parents=True)
    request = Request(
        "small:1",
        found,
        loaded,
        small_sampling(found),
        dataset,
        Protocol(
            dataset="tiny:1",
            dataset_sha256=digest_of(dataset.folder / "manifest.json"),
            split="validation",
            count=count,
            seed=0,
            judge=None,
            asked=asked_for(found, loaded.shape, dataset, "validation"),
            sampling=small_sampling(found).model_dump(mode="json"),
            precision="fp32",
        ),
        folder / "run",
        trained,
        curves={"train/loss": [(1, 2.0), (2, 1.0)]},
    )
    return replace(with_judge(request, folder), **changes)


def with_judge(request, folder):
    """The request with the judge of its dataset, where its medium needs one."""
    if not needs_judge(request.family):
        return request
    path = folder / "judge.safetensors"
    metrics = train_judge(request.dataset, path, device=CPU, stage=Stage(Recorder(), "", 0, 100))
    name = f"{recipe_of(request.dataset)}:{digest_of(path)}"
    return replace(
        request,
        judge=stored_judges.load(path, CPU),
        judge_metrics=metrics,
        protocol=replace(request.protocol, judge=name),
    )


def measured(request, monitor=None):
    return evaluate(request, Stage(monitor or Recorder(), "", 0, 100))
