"""What an import finds out about a base and its tokenizer: whether they fit, what they can do."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModelForCausalLM
from torch import nn
from transformers.pytorch_utils import Conv1D

from db.errors import BadInput
from worker.families.hf import probes
from worker.families.hf.folder import ADAPTER_CONFIG
from worker.families.hf.loading import empty_model
from worker.families.hf.tokenizer_check import check_tokenizer
from worker.networks.inspection import Inspection


def inspect_base(model: Any, tokenizer: Any, folder: Path, *, positions: int | None) -> Inspection:
    """Try a base that has been loaded from a version's folder; `BadInput` where it is not usable.

    `positions` are those that its configuration states, if it does.
    """
    _refuse_damaged(model)
    odd = check_tokenizer(model, tokenizer)
    _refuse_unfit_architecture(model, positions)
    cache, packing = probes.has_cache(model), probes.supports_packing(model)
    weights = [value for name, value in model.named_parameters() if ".lora_" not in name]
    has_adapter = (folder / ADAPTER_CONFIG).is_file()
    return Inspection(
        defaults={} if has_adapter else {"targets": _targets(model, folder)},
        params={} if packing else {"packing": False},
        record={"has_cache": cache},
        metrics={
            "architecture": type(model).__name__,
            "parameters": sum(each.numel() for each in weights),
            "cache": cache,
            "packing": packing,
            **({"warnings": odd} if odd else {}),
        },
    )


def _refuse_damaged(model: Any) -> None:
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadInput(
                f"the weights are damaged: {name} holds NaN or infinite numbers",
                remedy="download or save the model again",
            )


def _refuse_unfit_architecture(model: Any, positions: int | None) -> None:
    if probes.reads_ahead(model):
        raise BadInput(
            f"{type(model).__name__} as it is configured is not causal: later tokens change how "
            "earlier ones are read"
        )
    if positions is not None and not probes.reads_position(model, positions - 1):
        raise BadInput(
            f"config.json says that the model reads {positions} tokens, but it does not read one "
            "at that place",
            remedy="correct its max_position_embeddings or n_positions",
        )


def _targets(model: Any, folder: Path) -> list[str]:
    """The layers that an adapter is put on; none: all linear ones but the head, as is usual.

    Some architectures multiply by a layer's weights without calling it, or cannot have an adapter
    on it.
    """
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not model.get_output_embeddings()
    }
    called = _called(model, linear)
    names = {name.rpartition(".")[2] for name in linear}
    names -= {name.rpartition(".")[2] for name in linear if name not in called}
    if len(called) == len(linear) and _takes_adapter(folder, "all-linear"):
        return []
    return sorted(name for name in names if _takes_adapter(folder, [name]))


def _called(model: Any, layers: Mapping[str, nn.Module]) -> set[str]:
    """Which of these layers a forward calls."""
    called: set[str] = set()
    hooks = [
        layer.register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name, layer in layers.items()
    ]
    try:
        probes.reads_ahead(model)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _takes_adapter(folder: Path, targets: str | list[str]) -> bool:
    """Whether peft puts an adapter on these layers of the model."""
    config = LoraConfig(task_type="CAUSAL_LM", r=1, target_modules=targets)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            PeftModelForCausalLM(empty_model(folder), config)
    except ValueError:
        return False
    return True
