"""The model card of an exported version: what it is, how good it is, and what it was made from.

Its front matter is YAML as https://huggingface.co/docs/hub/model-cards describes it, with JSON for
values of several parts, which YAML includes. Under `genmill` it repeats all that the record holds,
which an import reads back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import datasets, evaluations, lineage
from db.tables import DatasetVersion, Model, ModelVersion
from scheduler.output.numbers import scalars
from worker.code_version import code_version
from worker.families import find_family
from worker.media import find_medium
from worker.networks.version_folder import read_small

CARD = "README.md"
OWN = "genmill: "  # the line of the front matter that an import reads
MAX_ANCESTORS = 50

Facts = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """What a card says of a version; `facts` are those that an import keeps."""

    model: Model
    version: ModelVersion
    library: str
    facts: Facts

    def text(self) -> str:
        """The whole card."""
        return f"---\n{self._front_matter()}---\n\n{self._body()}"

    def _front_matter(self) -> str:
        family = find_family(self.model.family)
        data, licence = self.facts["dataset"], self.facts["licence"]
        parts: Facts = {
            "license": licence,
            "datasets": [data["name"]] if data and data.get("name") else None,
            "base_model": next((each.get("version") for each in self.facts["lineage"]), None),
            "model-index": self._model_index(find_medium(family.media).pipeline_tag),
        }
        given = "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items() if value)
        return (
            f"library_name: {self.library}\n"
            f"tags: [genmill, {self.model.family}]\n"
            f"pipeline_tag: {find_medium(family.media).pipeline_tag}\n"
            f"{given}{OWN}{json.dumps(self.facts, sort_keys=True)}\n"
        )

    def _model_index(self, task: str) -> list[Facts]:
        """The evaluations in the form that the Hub reads."""
        results = [
            {
                "task": {"type": task},
                "dataset": {
                    "name": each["protocol"].get("dataset", "unknown"),
                    "type": "genmill",
                    "split": each["protocol"].get("split"),
                },
                "metrics": [
                    {"type": name, "value": number.get("value")}
                    for name, number in sorted(each["numbers"].items())
                ],
            }
            for each in self.facts["evaluations"]
        ]
        return [{"name": self.model.name, "results": results}] if results else []

    def _body(self) -> str:
        family, version, name = find_family(self.model.family), self.version, self.model.name
        metrics = sorted(scalars(version.metrics).items())
        numbers = "\n".join(f"| {key} | {each} |" for key, each in metrics)
        warnings = "".join(f"Warning: {each}.\n\n" for each in version.metrics.get("warnings", ()))
        settings = json.dumps(version.params, indent=2, sort_keys=True)
        return f"""# {name}, version {version.number}

{family.title}. Made by Genmill {self.facts["genmill"]}; weights SHA-256 `{version.weights_sha256}`.

Import it with `genmill model import DIR --name {name}`, then
`genmill enqueue generate {name} --count 10`. What it makes is AI-generated content.

## Metrics

| metric | value |
| --- | --- |
{numbers}

{warnings}## Evaluation

{_evaluations(self.facts["evaluations"])}

## Data

{_data(self.facts["dataset"])}

## Lineage

{_lineage(self.facts["lineage"])}

## Limits

{_limits(self.facts)}

## Parameters

```json
{settings}
```

## Papers

{chr(10).join(f"- {paper}" for paper in family.papers)}
"""


def make_card(session: Session, model: Model, version: ModelVersion, library: str) -> Card:
    """Collect what the record says of a version, else what the card of its import said."""
    kept: Facts = version.card or {}
    measured = [
        {"protocol": each.protocol, "numbers": each.numbers}
        for each in evaluations.of_version(session, version.id)
    ]
    data = _dataset(session, version.dataset_version_id) or kept.get("dataset")
    line = [
        {"version": each.reference, "weights_sha256": each.version.weights_sha256}
        for each in lineage.ancestors(session, version)[1:][:MAX_ANCESTORS]
    ]
    facts = {
        "version": f"{model.name}:{version.number}",
        "weights_sha256": version.weights_sha256,
        "evaluations": measured or kept.get("evaluations", []),
        "dataset": data,
        "licence": (data or {}).get("licence") or kept.get("licence"),
        "lineage": line or kept.get("lineage", []),
        "genmill": code_version(),
    }
    return Card(model, version, library, facts)


def read_card(folder: Path) -> Facts | None:
    """What the card of an exported folder says; None if there is no card of Genmill's.

    A card that somebody has edited is read as far as it goes: the weights are checked elsewhere.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    lines = read_small(path).splitlines()
    own = next((line for line in lines if line.startswith(OWN)), None)
    try:
        facts = json.loads(own.removeprefix(OWN)) if own else None
    except (ValueError, RecursionError):
        return None
    return _checked(facts)


def _checked(facts: Any) -> Facts | None:
    """The facts of the right types alone."""
    if not isinstance(facts, dict):
        return None
    types: Mapping[str, type | tuple[type, ...]] = {
        "version": str,
        "weights_sha256": str,
        "evaluations": list,
        "dataset": dict,
        "licence": str,
        "lineage": list,
        "genmill": str,
    }
    kept = {key: facts[key] for key, kind in types.items() if isinstance(facts.get(key), kind)}
    kept["evaluations"] = [
        {
            part: each[part] if isinstance(each.get(part), dict) else {}
            for part in ("protocol", "numbers")
        }
        for each in kept.get("evaluations", [])
        if isinstance(each, dict)
    ]
    for each in kept["evaluations"]:
        numbers = each["numbers"].items()
        each["numbers"] = {name: one for name, one in numbers if isinstance(one, dict)}
    kept["lineage"] = [each for each in kept.get("lineage", []) if isinstance(each, dict)]
    return kept


def _dataset(session: Session, version_id: str | None) -> Facts | None:
    if version_id is None:
        return None
    version: DatasetVersion = datasets.version(session, version_id)
    summary = version.summary
    told = {key: summary[key] for key in ("licence", "source", "tags") if summary.get(key)}
    return told | {
        "name": lineage.dataset_reference(session, version),
        "kind": version.kind,
        "counts": summary.get("counts", {}),
        "labels": summary.get("labels", []),
        "manifest_sha256": version.manifest_sha256,
    }


def _evaluations(found: Sequence[Facts]) -> str:
    if not found:
        return "It was not evaluated."
    parts = []
    for each in found:
        protocol = each["protocol"]
        how = ", ".join(f"{key} {_brief(value)}" for key, value in sorted(protocol.items()))
        rows = [
            f"| {name} | {_number(number.get('value'))} | {_number(number.get('low'))} to "
            f"{_number(number.get('high'))} | {_number(number.get('real'))} | "
            f"{number.get('n', '')} | {number.get('better', '')} |"
            for name, number in sorted(each["numbers"].items())
        ]
        head = (
            "| metric | value | 95% interval | real against real | items | better |\n"
            "| --- | --- | --- | --- | --- | --- |\n"
        )
        parts.append(f"{head}{chr(10).join(rows)}\n\nProtocol: {how or 'unknown'}.")
    return "\n\n".join(parts)


def _brief(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return f"`{text}`" if len(text) <= 80 else f"`{text[:77]}...`"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _data(data: Facts | None) -> str:
    if not data:
        return "What it was trained on is not on record."
    counts = ", ".join(f"{number} {split}" for split, number in _items(data, "counts"))
    lines = [f"- {data.get('name')}: {data.get('kind')}, {counts or 'of unknown size'}"]
    lines += [f"- {key}: {data[key]}" for key in ("licence", "source") if data.get(key)]
    lines += [f"- {key}: {value}" for key, value in sorted(_items(data, "tags"))]
    if "licence" not in data:
        lines.append("- licence: not stated when the data were added")
    if data.get("manifest_sha256"):
        lines.append(f"- SHA-256 of its manifest: `{data['manifest_sha256']}`")
    return "\n".join(lines)


def _items(data: Facts, key: str) -> list[tuple[str, Any]]:
    """What a card that somebody may have edited holds under a key."""
    found = data.get(key)
    return [*found.items()] if isinstance(found, dict) else []


def _lineage(found: Sequence[Facts]) -> str:
    if not found:
        return "It was trained from scratch, or imported."
    return "\n".join(
        f"{place}. tuned from {each.get('version')}, weights SHA-256 `{each.get('weights_sha256')}`"
        for place, each in enumerate(found, start=1)
    )


def _limits(facts: Facts) -> str:
    lines = [
        "- It imitates its training data, with their gaps and biases, and may repeat some of them.",
    ]
    numbers = {name for each in facts["evaluations"] for name in each["numbers"]}
    if "memorisation" not in numbers:
        lines.append("- How much of its training data it repeats was not measured.")
    if not facts["evaluations"]:
        lines.append("- Nothing is known of its quality but the losses above.")
    if not facts["licence"]:
        lines.append("- No licence of the data is on record: find out before you publish.")
    return "\n".join(lines)
