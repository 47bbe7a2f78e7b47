"""Base models in this process's memory: one copy of each, shared by any number of adapters.

A base is the model as it was imported, frozen. Its layers hold the adapters (peft), so each forward
names the one to use: `with base.using(adapter) as model: model(...)`.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from peft import LoraConfig, PeftModelForCausalLM
from torch import nn
from transformers.pytorch_utils import Conv1D

from db.errors import BadInput, Refused, raise_outage
from worker.families.hf.folder import ADAPTER_CONFIG, GENERATION_CONFIG, weight_files
from worker.families.hf.loading import read_base
from worker.families.hf.merge import stored_tensors
from worker.networks.version_folder import CONFIG, read_json

Key = tuple[str, str, str]  # the digest of its weights and settings, the device, the precision

BYTES = {"fp32": 4, "bf16": 2, "nf4": 0.52}  # a weight; nf4 includes its scales

# what code of transformers raises for a model or an input that it was not written for
CODE_ERRORS = (
    AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError,
)  # fmt: skip

_loaded: WeakValueDictionary[Key, "Base"] = WeakValueDictionary()
_adapter_numbers = count()


class Base:
    """One base model and its adapters, of which at most one is active."""

    def __init__(self, model: nn.Module, key: Key) -> None:
        self.model: Any = model.requires_grad_(False).eval()
        self.key = key
        weights = [*model.parameters(), *model.buffers()]
        self.size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
        self.has_slots: bool | None = None  # see `slots.enable_slots`; None: not tried yet
        self.has_cache: bool | None = None  # see `probes.has_cache`; None: not tried yet
        self._peft: Any = None  # a PeftModelForCausalLM, once there is an adapter
        self._active: tuple[str | None, bool] | None = (None, False)  # adapter, training

    def add_adapter(self, config: LoraConfig) -> str:
        """Add a new adapter and return its name. Its B is zero, so it changes nothing yet."""
        name, self._active = f"adapter{next(_adapter_numbers)}", None
        try:
            with warnings.catch_warnings():
                # peft uses a name that transformers deprecates
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                if self._peft is None:
                    self._peft = PeftModelForCausalLM(self.model, config, adapter_name=name)
                else:
                    self._peft.add_adapter(name, config)
        except ValueError as error:
            complaint = " ".join(str(error).split())
            raise Refused(f"this base cannot have such an adapter: {complaint}") from None
        return name

    def adapter_config(self, name: str) -> LoraConfig:
        """An adapter's configuration, which names its layers."""
        if self._peft is None:
            raise RuntimeError("add_adapter() comes first: the base has no adapter")
        found: LoraConfig = self._peft.peft_config[name]
        return found

    def drop_adapter(self, name: str) -> None:
        """Delete an adapter."""
        with self.using(None):  # deleting the active one would warn
            pass
        if self._peft is not None:
            self._peft.base_model.delete_adapter(name)

    def adapter_weights(self, name: str) -> dict[str, nn.Parameter]:
        """An adapter's parameters by their names in peft's files."""
        inside = f".{name}."
        return {
            f"base_model.model.{key.replace(inside, '.')}": parameter
            for key, parameter in self.model.named_parameters()
            if inside in key
        }

    @contextmanager
    def using(self, name: str | None, *, training: bool = False) -> Iterator[Any]:
        """The model with one adapter active, or none; it has gradients only in `training`.

        Raises `Refused` in place of an error of the model's own code, which no retry can help.
        """
        if self._peft is not None and self._active != (name, training):
            active = [] if name is None else [name]
            self._peft.base_model.set_adapter(active, inference_mode=not training)
            self._active = (name, training)
        if self.model.training != training:
            self.model.train(training)
        try:
            yield self.model
        except CODE_ERRORS as error:
            complaint = " ".join(str(error).split())[:300]
            raise Refused(
                f"{type(self.model).__name__} of transformers cannot do this: "
                f"{type(error).__name__}: {complaint}",
                remedy="import the model again, which says what it can do",
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> "Base":
        """A copy with its own adapters that shares the frozen weights."""
        twin = copy(self)
        memo[id(self)] = twin
        frozen = [*self.model.parameters(), *self.model.buffers()]
        memo.update({id(each): each for each in frozen if not each.requires_grad})
        twin.model, twin._peft = deepcopy((self.model, self._peft), memo)
        return twin


def base_digest(folder: Path) -> str:
    """What a base in memory is known by: its weights, and the files that say what it is.

    Raises `BadInput` where the version does not name its base.
    """
    config = read_json(folder / CONFIG)
    try:
        weights = str(config["genmill"]["base_sha256"])
    except (KeyError, TypeError):
        raise BadInput(
            f"{CONFIG} does not say which base the model has", remedy="import the model again"
        ) from None
    generation = folder / GENERATION_CONFIG
    settings = {key: value for key, value in config.items() if key != "genmill"}
    about = [weights, settings, read_json(generation) if generation.is_file() else {}]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def load_base(folder: Path, digest: str, *, device: torch.device, precision: str) -> Base:
    """The base of a version's folder on `device`, read unless it is in memory already.

    `precision` is fp32, bf16 or nf4. Raises `Refused` where this machine does not support it,
    `BadInput` where the files are not a model.
    """
    key = (digest, str(device), precision)
    base = _loaded.get(key)
    if base is None:
        base = _loaded[key] = Base(read_base(folder, device, precision), key)
    return base


def read_adapter_config(folder: Path) -> LoraConfig:
    """A version's `adapter_config.json`; `BadInput` where it is not a LoRA adapter's."""
    try:
        config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise_outage(error)
        raise BadInput(f"peft cannot read {ADAPTER_CONFIG}: {error}") from None
    if not isinstance(config, LoraConfig):
        raise BadInput(f"{ADAPTER_CONFIG} does not describe a LoRA adapter")
    return config


def write_adapter_config(config: LoraConfig, folder: Path) -> None:
    """Write peft's `adapter_config.json`; equal adapters give equal bytes."""
    stated: dict[str, Any] = config.to_dict()
    data = {**stated, "base_model_name_or_path": None, "inference_mode": True}
    text = json.dumps(data, indent=2, sort_keys=True, default=sorted)  # sets have no order
    (folder / ADAPTER_CONFIG).write_text(text + "\n", "utf-8")


def has_conv1d(model: nn.Module) -> bool:
    """Whether linear layers hold transposed matrices, as GPT-2's do."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def bytes_to_load_base(folder: Path, digest: str, *, device: torch.device, precision: str) -> int:
    """The memory that `load_base` will take; 0 if the base is in memory already."""
    if (digest, str(device), precision) in _loaded:
        return 0
    files = [folder / name for name in weight_files(folder) if (folder / name).is_file()]
    shapes = [place.shape for path in files for place in stored_tensors(path).values()]
    vocabulary = read_json(folder / CONFIG).get("vocab_size")

    def bytes_each(shape: Sequence[int]) -> float:
        # 4 bits are for matrices only, without embedding and head
        plain = len(shape) != 2 or vocabulary in shape
        return BYTES["bf16" if precision == "nf4" and plain else precision]

    return int(sum(math.prod(shape) * bytes_each(shape) for shape in shapes))
