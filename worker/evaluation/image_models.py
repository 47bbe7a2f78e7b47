"""Image models of the library transformers, loaded from folders that users bring, or refused.

No code of a folder is run, and its weights are safetensors.
"""

import inspect
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from db.errors import BadInput, GenmillError, raise_outage
from worker.networks.image_model import AGAIN, OTHER_MODEL, ImageModel
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX

POOLER = "pooler."  # of a checkpoint that was trained without one: then the mean of the last layer

logging.set_verbosity_error()
logging.disable_progress_bar()


def refuse_unusable(source: ImageModel) -> None:
    """Raise `BadInput` unless a judge can be built on a folder, as far as its headers tell.

    The model is built on PyTorch's `meta` device, where tensors take no memory. What cannot be run
    there is left for `fit` to find out, and so is what a package that is not here would say.
    """
    with suppress(ImportError), reading(source, passing=ImportError):
        model, _ = load(source, "meta")
        try:
            feature_count(model, source.preparation.side)
        except (NotImplementedError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "meta" not in str(error):
                raise


def load(source: ImageModel, device: str | None = None) -> tuple[Any, bool]:
    """The model of a folder, and whether it has no pooler. Raises what is wrong with it."""
    _refuse_larger(source)
    model, report = AutoModel.from_pretrained(
        source.folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        device_map=device,
        ignore_mismatched_sizes=True,  # they are refused below, with their sizes
        output_loading_info=True,
    )
    _refuse_other_sizes(source, report["mismatched_keys"])
    _refuse_blind(source, model)
    lacking = sorted(report["missing_keys"])
    poolerless = bool(lacking) and all(name.startswith(POOLER) for name in lacking)
    if lacking and not poolerless:
        raise BadInput(
            f"{source.folder} holds no whole {type(model).__name__}: "
            f"{len(lacking)} tensors are missing, such as {lacking[0]}",
            remedy=AGAIN,
        )
    return without_pooler(model) if poolerless else model, poolerless


def feature_count(model: Any, side: int) -> int:
    """How many features a model has of a picture of `side` x `side` pixels."""
    with torch.inference_mode():
        return pool(model.eval(), torch.zeros(1, 3, side, side, device=model.device)).shape[1]


def pool(model: Any, pixels: Tensor) -> Tensor:
    """Features (B, D): the image's embedding, the pooled output, or the last layer's mean."""
    found = _embedding(model)(pixel_values=pixels)
    if isinstance(found, Tensor):
        return found.flatten(1)
    if getattr(found, "pooler_output", None) is not None:
        return cast(Tensor, found.pooler_output.flatten(1))
    last = found.last_hidden_state  # (B, T, D) or (B, D, H, W)
    return cast(Tensor, last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3)))


def without_pooler(model: Any) -> Any:
    """The model without weights that would be drawn at random."""
    model.pooler = None
    return model


def _embedding(model: Any) -> Callable[..., Any]:
    """What of a model takes pictures: itself, or a part of a model of images and texts."""
    found: Callable[..., Any] = getattr(model, "get_image_features", model)
    return found


def _refuse_blind(source: ImageModel, model: Any) -> None:
    """Refuse a model that takes something other than pictures."""
    embeds: Any = _embedding(model)
    taken = inspect.signature(model.forward if embeds is model else embeds).parameters
    if "pixel_values" not in taken:
        raise BadInput(
            f"{source.folder}: a {type(model).__name__} takes {model.main_input_name}, no pictures",
            remedy=OTHER_MODEL,
        )


def _refuse_other_sizes(source: ImageModel, mismatched: Collection[tuple[Any, ...]]) -> None:
    """Refuse tensors of other sizes than the configuration's."""
    for name, held, declared in sorted(mismatched, key=str):
        more = f", and {len(mismatched) - 1} more tensors do not fit" if len(mismatched) > 1 else ""
        raise BadInput(
            f"{source.folder}: {name} has the sizes {list(held)}, and by {CONFIG} it should have "
            f"{list(declared)}{more}",
            remedy=AGAIN,
        )


def _refuse_larger(source: ImageModel) -> None:
    """Refuse a configuration of many more weights than there are, before memory is taken."""
    held = 0
    for path in source.folder.glob(f"*{WEIGHTS_SUFFIX}"):
        with safe_open(path, framework="numpy") as file:
            held += sum(math.prod(file.get_slice(each).get_shape()) for each in file.keys())  # noqa: SIM118 - not a dict
    config = AutoConfig.from_pretrained(
        source.folder, local_files_only=True, trust_remote_code=False
    )
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    declared = sum(each.numel() for each in model.parameters())
    if declared > 2 * held:
        raise BadInput(
            f"{source.folder}: {CONFIG} describes a {type(model).__name__} of {declared:,} "
            f"weights, but the files hold {held:,}",
            remedy=AGAIN,
        )


@contextmanager
def reading(source: ImageModel, *, passing: type[Exception] = GenmillError) -> Iterator[None]:
    """Raise `BadInput` in place of whatever transformers raises for what is no image model."""
    try:
        yield
    except (GenmillError, passing):
        raise
    except Exception as error:
        raise_outage(error)
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(
            f"transformers cannot use {source.folder} as an image model: {complaint}",
            remedy=OTHER_MODEL,
        ) from None
