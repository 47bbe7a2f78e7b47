"""The card of a repository in the layout of the Hugging Face hub, and lines of its metadata."""

import json
from collections import Counter
from collections.abc import Iterable

from worker.publishing.base import Record


def metadata_line(file_name: str, record: Record) -> str:
    """The line of a sample in `metadata.jsonl`: its file, and its record's plain values."""
    plain = {key: each for key, each in record.items() if isinstance(each, str | int | float)}
    return json.dumps({"file_name": file_name, **plain}, ensure_ascii=False)


def card(records: Iterable[Record], samples: int, license: str | None) -> str:
    """The card: what there is, which models made it, that AI did, and how to check it.

    The records are those of all samples, as far as the metadata have them, and of all other files.
    """
    files, tag = 0, None
    models, weights = Counter[str](), dict[str, object]()
    for record in records:
        files, tag = files + 1, tag or record.get("pipeline_tag")
        if model := record.get("model"):
            models[str(model)] += 1
            weights[str(model)] = record.get("weights_sha256")
    head = ["---", "tags:", "- synthetic", "- genmill"]
    head += [f"pipeline_tag: {tag}"] if tag and not samples else []
    head += [f"license: {license}"] if license else []
    body = [
        f"# {samples:,} samples, made by AI" if samples else f"# {files:,} files of a model",
        "",
        "Published by Genmill. Each file has its record in `records/`; a sample carries it inside, "
        "too: the model, its settings and seed, and that it was made by AI (IPTC digital source "
        "type `trainedAlgorithmicMedia`).",
        "",
        "| model | items | SHA-256 of its weights |",
        "| --- | --- | --- |",
        *(f"| {name} | {count:,} | `{weights[name]}` |" for name, count in sorted(models.items())),
    ]
    return "\n".join([*head, "---", "", *body, ""])
