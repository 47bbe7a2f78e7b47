"""Bases in this process's memory: one of each, with any number of adapters in it.

A base is the model as it was imported; it is frozen. An adapter's numbers lie inside its layers
(peft), so a forward says whose it is: `with base.using(adapter): base.model(...)`.
"""

import json
import math
import tempfile
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
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging
from transformers.utils.import_utils import BITSANDBYTES_MIN_VERSION, is_bitsandbytes_available

from db.errors import BadInput, Refused
from worker.families.hf.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, weight_files
from worker.families.hf.merge import places
from worker.networks.version_folder import CONFIG, read_json

Key = tuple[str, str, str]  # the digest of its weights, the device, how it is held

BYTES = {"fp32": 4, "bf16": 2, "nf4": 0.52}  # of a number; nf4 with its scales

_resident: WeakValueDictionary[Key, "Base"] = WeakValueDictionary()
_numbers = count()

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # as above


class Base:
    """One base, and who is at work in it."""

    def __init__(self, model: nn.Module, key: Key) -> None:
        self.model: Any = model.requires_grad_(False).eval()
        self.key = key
        weights = [*model.parameters(), *model.buffers()]
        self.size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
        self._peft: Any = None  # a PeftModelForCausalLM, once there is an adapter
        self._now: tuple[str | None, bool] | None = (None, False)

    def add(self, config: LoraConfig) -> str:
        """Put a fresh adapter in; what names it from then on. Its B is zero: it changes nothing."""
        name, self._now = f"adapter{next(_numbers)}", None
        try:
            with warnings.catch_warnings():
                # peft asks transformers by a name that is to go
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                self._insert(name, config)
        except ValueError as error:
            raise Refused(
                f"this base cannot be adapted so: {' '.join(str(error).split())}"
            ) from None
        return name

    def _insert(self, name: str, config: LoraConfig) -> None:
        if self._peft is None:
            self._peft = PeftModelForCausalLM(self.model, config, adapter_name=name)
        else:
            self._peft.add_adapter(name, config)

    def config(self, name: str) -> LoraConfig:
        """How an adapter is made, its layers named."""
        if self._peft is None:
            raise RuntimeError("no adapter was added")
        found: LoraConfig = self._peft.peft_config[name]
        return found

    def drop(self, name: str) -> None:
        """Take an adapter out."""
        with self.using(None):  # the one in use cannot be deleted without a warning
            pass
        if self._peft is not None:
            self._peft.base_model.delete_adapter(name)

    def weights(self, name: str) -> dict[str, nn.Parameter]:
        """An adapter's parameters by the names that peft's files have."""
        inside = f".{name}."
        return {
            f"base_model.model.{key.replace(inside, '.')}": parameter
            for key, parameter in self.model.named_parameters()
            if inside in key
        }

    @contextmanager
    def using(self, name: str | None, *, training: bool = False) -> Iterator[Any]:
        """The model with one adapter at work, or with none; only in `training` has it gradients."""
        if self._peft is not None and self._now != (name, training):
            active = [] if name is None else [name]
            self._peft.base_model.set_adapter(active, inference_mode=not training)
            self._now = (name, training)
        if self.model.training != training:
            self.model.train(training)
        yield self.model

    def __deepcopy__(self, memo: dict[int, Any]) -> "Base":
        """Another holder of the same frozen weights, with adapters of its own."""
        twin = copy(self)
        memo[id(self)] = twin
        frozen = [*self.model.parameters(), *self.model.buffers()]
        memo.update({id(each): each for each in frozen if not each.requires_grad})
        twin.model, twin._peft = deepcopy((self.model, self._peft), memo)
        return twin


def resident(folder: Path, digest: str, *, device: torch.device, held: str) -> Base:
    """The base of a version's folder on `device`, read where it is not in memory yet.

    `held` is fp32, bf16 or nf4. Raises `Refused` where this machine cannot hold it so, `BadInput`
    where the files are not a model.
    """
    key = (digest, str(device), held)
    base = _resident.get(key)
    if base is None:
        base = _resident[key] = Base(_read(folder, device, held), key)
    return base


def read_adapter_config(folder: Path) -> LoraConfig:
    """A version's `adapter_config.json`; `BadInput` where it is none of LoRA's."""
    try:
        config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"peft cannot read {ADAPTER_CONFIG}: {error}") from None
    if not isinstance(config, LoraConfig):
        raise BadInput(f"{ADAPTER_CONFIG} is not that of a LoRA adapter")
    return config


def write_adapter_config(config: LoraConfig, folder: Path) -> None:
    """Write `adapter_config.json` as peft has it; equal adapters, equal bytes."""
    stated: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]  # peft leaves it so
    data = {**stated, "base_model_name_or_path": None, "inference_mode": True}
    text = json.dumps(data, indent=2, sort_keys=True, default=sorted)  # sets have no order
    (folder / ADAPTER_CONFIG).write_text(text + "\n", "utf-8")


def has_conv1d(model: nn.Module) -> bool:
    """Whether linear layers hold their matrices the other way round, as GPT-2's do."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def bytes_to_read(folder: Path, digest: str, *, device: torch.device, held: str) -> int:
    """The memory that `resident` will take: none where the base is there already."""
    if (digest, str(device), held) in _resident:
        return 0
    files = [folder / name for name in weight_files(folder) if (folder / name).is_file()]
    shapes = [place.shape for path in files for place in places(path).values()]
    words = read_json(folder / CONFIG).get("vocab_size")
    return int(sum(math.prod(shape) * _bytes_of(shape, held, words) for shape in shapes))


def packs(model: Any) -> bool:
    """Whether examples packed into one row do not see each other: seen by trying.

    A model that reads its positions as where examples begin passes; one that does not know them, or
    keeps a state from token to token, does not.
    """
    device = next(model.parameters()).device
    size = min(int(model.get_input_embeddings().weight.shape[0]), 64)
    ids = torch.arange(12, device=device).remainder(size)[None]  # (1, 12)
    places = torch.arange(12, device=device).remainder(6)[None]  # two examples of 6
    with torch.inference_mode():
        both: Tensor = model(input_ids=ids, position_ids=places, use_cache=False).logits[:, 6:]
        alone: Tensor = model(
            input_ids=ids[:, 6:], position_ids=places[:, 6:], use_cache=False
        ).logits
    far = (both.float() - alone.float()).abs().max()
    return bool(far <= 0.02 * alone.float().abs().max())


def _bytes_of(shape: Sequence[int], held: str, words: int | None) -> float:
    """Of a number: four bits are for matrices, but not for those from and to the vocabulary."""
    stays = held == "nf4" and (len(shape) != 2 or words in shape)
    return BYTES["bf16" if stays else held]


def _read(folder: Path, device: torch.device, held: str) -> nn.Module:
    if held == "nf4" and not (device.type == "cuda" and is_bitsandbytes_available()):
        raise Refused(
            f"base=nf4 (QLoRA) needs a CUDA device and the package bitsandbytes, "
            f"{BITSANDBYTES_MIN_VERSION} or newer; here is {device}: set base to bf16 or fp32"
        )
    with _without_adapter(folder) as plain:
        try:
            model: nn.Module = AutoModelForCausalLM.from_pretrained(
                plain,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32 if held == "fp32" else torch.bfloat16,
                quantization_config=_nf4() if held == "nf4" else None,
                device_map={"": device} if held == "nf4" else None,
            )
        except torch.OutOfMemoryError:  # a RuntimeError too, and no fault of the files
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            complaint = " ".join(str(error).split())[:300]
            raise BadInput(f"transformers cannot read the base: {complaint}") from None
    return model if held == "nf4" else model.to(device)


def _nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """The folder as transformers shall see it, for it would load an adapter beside a base too."""
    with tempfile.TemporaryDirectory() as name:
        for path in folder.iterdir():
            if path.name not in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
                (Path(name) / path.name).symlink_to(path.absolute())
        yield Path(name)
