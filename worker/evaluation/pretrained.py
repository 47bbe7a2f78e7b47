"""Judges on image models of the library transformers, such as CLIP, DINOv2, ViT or ResNet.

The model's pooled features are reduced to their `FEATURES` leading principal components over the
training items: of the thousands that such a model has, a few samples say little. Classes are named
by a linear classifier on these. The judge's file holds all of it, the model's weights too.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from db.errors import BadInput
from worker.engine.device import deterministic
from worker.engine.tensors import write_tensors
from worker.evaluation.image_models import feature_count, load, pool, reading, without_pooler
from worker.evaluation.judge import FEATURES, Judge, Labels, Pixels, Tick, look, one_thread
from worker.networks.image_model import ImageModel

ROWS = 32  # of a forward pass
STEPS, LR = 300, 0.05  # of the classifier's training

Form = Mapping[str, Any]


class PretrainedJudge(Judge):
    """An image model, the principal components of its features, and a linear classifier."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, form: Form, model: nn.Module) -> None:
        """`form` says how the model is built and its pictures are prepared."""
        super().__init__(form["width"], form["classes"], rows=ROWS)
        self.form, self.model, self.side = form, model, int(form["side"])
        self.register_buffer("mean", torch.tensor(form["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(form["deviation"]).view(1, 3, 1, 1), persistent=False
        )
        self.embed = nn.Linear(form["features"], form["width"])
        self.head = nn.Linear(form["width"], form["classes"]) if form["classes"] else None

    def pooled(self, pictures: Tensor) -> Tensor:
        """The model's own features (B, D) of pictures in [-1, 1]."""
        coloured = pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures
        size = (self.side, self.side)
        scaled = functional.interpolate(coloured, size, mode="bicubic", antialias=True)
        return pool(self.model, (scaled.clamp(-1, 1) / 2 + 0.5 - self.mean) / self.deviation)

    def features(self, pictures: Tensor) -> Tensor:
        """See `Judge.features`."""
        return cast(Tensor, self.embed(self.pooled(pictures)))

    def judge(self, features: Tensor) -> Tensor:
        """See `Judge.judge`."""
        return features if self.head is None else cast(Tensor, self.head(features / self.scale))


def fit(
    source: ImageModel,
    pixels: Pixels,
    labels: Labels | None,
    *,
    classes: int,
    device: torch.device,
    tick: Tick,
) -> tuple[PretrainedJudge, float]:
    """A judge of pictures, and the share of the variance of the model's features that it keeps.

    `labels` are None without `classes`. Raises `BadInput` where the folder holds no image model, or
    one whose features are not finite.
    """
    deterministic()
    model, form = _read(source)
    plain = _Whole(form, model).to(device).eval()
    found = look(plain, pixels, tick).features.astype(np.float64)
    if not np.isfinite(found).all():
        raise BadInput(
            "the image model's features of the training items are not finite numbers",
            remedy="use other weights",
        )
    centre, axes, kept = _components(found)
    form |= {"width": axes.shape[1], "classes": classes}
    network = PretrainedJudge(form, model).eval()
    with torch.no_grad():
        network.embed.weight.copy_(torch.from_numpy(axes.T))
        network.embed.bias.copy_(torch.from_numpy(-centre @ axes))
        network.scale.fill_(math.sqrt(float(((found - centre) @ axes).var(axis=0).mean())) or 1.0)
    if labels is not None and network.head is not None:
        inputs = (found - centre) @ axes / float(network.scale)
        with one_thread():
            _train_head(network.head, inputs, labels)
    return network.to(device), kept


def save(network: PretrainedJudge, path: Path) -> None:
    """Write a judge's weights and its form; equal judges give equal bytes."""
    write_tensors(path, network.state_dict(), about={"form": dict(network.form)})


def of_form(form: Form) -> PretrainedJudge:
    """A judge of this form, with weights still to be loaded. Raises as the library does."""
    config = dict(form["config"])
    described = AutoConfig.for_model(config.pop("model_type"), **config)
    model = AutoModel.from_config(described).float()
    return PretrainedJudge(form, without_pooler(model) if form["poolerless"] else model)


class _Whole(PretrainedJudge):
    """Finds all of the model's own features."""

    def __init__(self, form: Form, model: nn.Module) -> None:
        super().__init__({**form, "width": 1, "classes": 0}, model)
        self.width = form["features"]

    def features(self, pictures: Tensor) -> Tensor:
        """See `Judge.features`."""
        return self.pooled(pictures)


def _read(source: ImageModel) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a folder, whole, and the form of judges on it but for `width` and `classes`."""
    with reading(source):
        model, poolerless = load(source)
        prepared = source.preparation
        return model, {
            "library": "transformers",
            "config": model.config.to_dict(),
            "poolerless": poolerless,
            "side": prepared.side,
            "mean": list(prepared.mean),
            "deviation": list(prepared.deviation),
            "features": feature_count(model, prepared.side),
        }


def _components(features: npt.NDArray[np.float64]) -> tuple[Any, Any, float]:
    """The mean (D,), the leading principal axes (D, width), and their share of the variance."""
    centre = features.mean(axis=0)
    centred = features - centre
    variances, axes = np.linalg.eigh(centred.T @ centred / max(len(features) - 1, 1))
    leading = axes[:, ::-1][:, :FEATURES]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    total = float(variances.clip(0).sum())
    kept = min(float(variances.clip(0)[::-1][:FEATURES].sum()) / total, 1.0) if total else 0.0
    return centre, leading * np.where(signs == 0, 1, signs), kept


def _train_head(head: nn.Linear, inputs: npt.NDArray[np.float64], labels: Labels) -> None:
    """Fit a linear classifier from zero, by all items in each step."""
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    given, wanted = torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(head.parameters(), LR)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(head(given), wanted)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
