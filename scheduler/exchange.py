"""Handing models on: a version as a folder in the Hugging Face layout, and back.

A folder comes from strangers, so weights are safetensors or nothing, and every file is checked
before anything is stored. Pickles are never opened.
"""

import json
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from db import models
from db.errors import BadInput
from db.tables import Model, ModelVersion
from scheduler.intake import check_name
from worker.families import find_family
from worker.files import disk_errors, written_whole
from worker.services import Services
from worker.specs import parse_params

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
OTHERS = ("tokenizer.json",)  # what a family may keep beside its weights
PREFIX = "models/blobs"
MAX_HEADER_BYTES = 100 << 20
MAX_SMALL_BYTES = 64 << 20  # of the files that are not weights


def export_model(services: Services, reference: str, folder: Path) -> list[Path]:
    """Write the version that `reference` means into `folder`; return the files, digests checked."""
    with services.database.read() as session:
        model, version = models.resolve(session, reference)
        metrics = dict(version.metrics)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name in (CONFIG, WEIGHTS, *OTHERS):
            if file := version.files.get(name):
                services.store.fetch(file["key"], folder / name, sha256=file["sha256"])
                written.append(folder / name)
        with written_whole(folder / CARD) as card:
            card.write(_card(model, version, metrics).encode())
    return [*written, folder / CARD]


def import_model(services: Services, folder: Path, name: str) -> tuple[Model, ModelVersion]:
    """Store the model in `folder` as a new version of model `name`.

    Raises `BadInput` for a folder that is not one, `NotFound` for an unknown family, and `Refused`
    where `name` is of another family.
    """
    check_name("model", name)
    config = read_config(folder)
    family = find_family(config["family"])
    params = parse_params(family.params, config["params"], what=f"{CONFIG} of {family.name}")
    check_weights(folder / WEIGHTS)
    files = {
        file: vars(services.store.put(PREFIX, folder / file))
        for file in (CONFIG, WEIGHTS, *OTHERS)
        if (folder / file).is_file()
    }

    def work(session: Any) -> tuple[Model, ModelVersion]:
        added = models.add_version(
            session,
            name=name,
            family=family.name,
            params=params.model_dump(mode="json"),
            files=files,
            weights_sha256=files[WEIGHTS]["sha256"],
            metrics={},
        )
        return models.resolve(session, f"{name}:{added.number}")

    return services.database.transact(work)


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder; `BadInput` where it is not one of Genmill's."""
    path = folder / CONFIG
    if not path.is_file():
        raise BadInput(f"{folder}: no {CONFIG}; a folder that `genmill model export` wrote has one")
    try:
        config = json.loads(_read_small(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    wanted = {"genmill": int, "family": str, "params": dict, "shape": dict}
    for key, kind in wanted.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise BadInput(f"{path}: no {key!r} of kind {kind.__name__}; Genmill did not write it")
    return dict(config)


def check_weights(path: Path) -> None:
    """Refuse what is no safetensors file: the header must parse and account for every byte."""
    if not path.is_file():
        others = [
            each.name
            for each in path.parent.iterdir()
            if each.suffix in {".bin", ".pt", ".pth", ".ckpt"}
        ]
        hint = f"; {others[0]} may run code when opened and is never read" if others else ""
        raise BadInput(f"{path.parent}: no {WEIGHTS}{hint}")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise BadInput(f"{path}: not a safetensors file")
        header = file.read(length)
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError):
        raise BadInput(f"{path}: the safetensors header is damaged") from None
    if end != size - 8 - length:
        raise BadInput(f"{path}: {size - 8 - length} bytes of tensors, the header says {end}")


def _read_small(path: Path) -> str:
    if path.stat().st_size > MAX_SMALL_BYTES:
        raise BadInput(f"{path}: larger than {MAX_SMALL_BYTES} bytes")
    return path.read_text("utf-8")


def _card(model: Model, version: ModelVersion, metrics: dict[str, Any]) -> str:
    """The model card, as https://huggingface.co/docs/hub/model-cards describes it."""
    family = find_family(model.family)
    tag = {"image": "unconditional-image-generation", "text": "text-generation"}.get(family.media)
    numbers = "\n".join(f"| {key} | {value} |" for key, value in sorted(metrics.items()))
    settings = json.dumps(version.params, indent=2, sort_keys=True)
    return f"""---
library_name: genmill
tags: [genmill, {model.family}]
{f"pipeline_tag: {tag}" if tag else ""}
---

# {model.name}, version {version.number}

{family.title}. Made by Genmill {installed("genmill")}; weights SHA-256 `{version.weights_sha256}`.

Take it in with `genmill model import DIR --name {model.name}`, then
`genmill enqueue generate {model.name} --count 10`. What it makes is AI-generated content.

## Metrics

| metric | value |
| --- | --- |
{numbers}

## Parameters

```json
{settings}
```

## Papers

{chr(10).join(f"- {paper}" for paper in family.papers)}
"""
