"""Handing models on: a version as a folder in the Hugging Face layout, and back.

A folder that transformers wrote is taken in too, as a version of family `hf`. `SHA256SUMS` tells
whether an exported folder is still as it was; `sha256sum -c` reads it too.
"""

import json
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from db import models
from db.errors import Refused
from db.tables import Model, ModelVersion
from scheduler.datasets.add import check_name
from scheduler.models.model_folder import CONFIG, SUFFIX, SUMS, open_folder
from scheduler.submission.pinning import refuse_other_family
from worker.families import find_family, own_record
from worker.families.hf.folder import ADAPTER_CONFIG, TOKENIZER
from worker.families.hf.merge import merge as merge_adapter
from worker.files import digest_of, disk_errors, weights_digest, written_whole
from worker.media import find_medium
from worker.services import Services

CARD = "README.md"
PREFIX = "models/blobs"


def export_model(
    services: Services, reference: str, folder: Path, *, merge: bool = False
) -> list[Path]:
    """Write the version that `reference` means into `folder`; return the files, digests checked.

    With `merge` an adapter is worked into its base's weights; `Refused` where there is none.
    """
    with services.database.read() as session:
        model, version = models.resolve(session, reference)
        metrics = dict(version.metrics)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write = _write_merged if merge else _write_files
        digests = write(services, version, folder)
        sums = "".join(f"{sha256}  {name}\n" for name, sha256 in digests.items())
        for name, text in ((SUMS, sums), (CARD, _card(model, version, metrics))):
            with written_whole(folder / name) as file:
                file.write(text.encode())
    return [folder / name for name in (*digests, SUMS, CARD)]


def import_model(services: Services, folder: Path, name: str) -> tuple[Model, ModelVersion]:
    """Store the model in `folder` as a new version of model `name`.

    Raises `BadInput` for a folder that is not one or has changed since it was exported, `NotFound`
    for an unknown family, and `Refused` where `name` is of another family, or will be.
    """
    check_name("model", name)
    found = open_folder(folder)
    files = {each: vars(services.store.put(PREFIX, folder / each)) for each in found.names}
    config = found.recorded({each: blob["sha256"] for each, blob in files.items()})
    own = own_record(json.loads(config))
    family = find_family(own["family"])
    files[CONFIG] = vars(services.store.put_bytes(PREFIX, config))
    weights = {each: blob["sha256"] for each, blob in files.items() if each.endswith(SUFFIX)}

    def work(session: Any) -> tuple[Model, ModelVersion]:
        refuse_other_family(session, name, family)
        added = models.add_version(
            session,
            name=name,
            family=family.name,
            params=family.params(**own["params"]).model_dump(mode="json"),
            files=files,
            weights_sha256=weights_digest(weights),
            metrics={},
        )
        return models.resolve(session, f"{name}:{added.number}")

    return services.database.transact(work)


def _write_files(services: Services, version: ModelVersion, folder: Path) -> dict[str, str]:
    """Write the version's files; return their digests by name, the configuration's first."""
    names = sorted(version.files, key=lambda name: (name != CONFIG, name))
    digests = {name: version.files[name]["sha256"] for name in names}
    for name, sha256 in digests.items():
        services.store.fetch(version.files[name]["key"], folder / name, sha256=sha256)
    return digests


def _write_merged(services: Services, version: ModelVersion, folder: Path) -> dict[str, str]:
    if ADAPTER_CONFIG not in version.files:
        raise Refused("this version has no adapter that could be merged: leave --merge out")
    with TemporaryDirectory(dir=folder, prefix=".merging-") as name:
        _write_files(services, version, Path(name))
        merge_adapter(Path(name))
        made = {path.name: digest_of(path) for path in sorted(Path(name).iterdir())}
        for each in made:
            (Path(name) / each).replace(folder / each)
    return made


def _library(version: ModelVersion) -> str:
    """What the hub calls the code that reads such a folder."""
    if TOKENIZER[1] not in version.files:
        return "genmill"
    return "peft" if ADAPTER_CONFIG in version.files else "transformers"


def _card(model: Model, version: ModelVersion, metrics: dict[str, Any]) -> str:
    """The model card, as https://huggingface.co/docs/hub/model-cards describes it."""
    family = find_family(model.family)
    numbers = "\n".join(f"| {key} | {value} |" for key, value in sorted(metrics.items()))
    settings = json.dumps(version.params, indent=2, sort_keys=True)
    return f"""---
library_name: {_library(version)}
tags: [genmill, {model.family}]
pipeline_tag: {find_medium(family.media).pipeline_tag}
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
