"""What a file or a folder is that is not a model Genmill can import, and what to do about it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from db.errors import BadInput
from worker.networks.version_folder import CONFIG, WEIGHTS, WEIGHTS_SUFFIX
from worker.networks.weights_header import BEGINNINGS, CONVERT, GGUF, Finding, what_it_is

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
# by the names in a folder
OTHER_LIBRARIES: dict[str, Finding] = {
    "*.gguf": GGUF,
    "model_index.json": ("a pipeline of diffusers", "import a causal language model"),
    "*.onnx": ("a model exported to ONNX", "import the model's safetensors"),
    "*.h5": ("weights of Keras", "import the model's safetensors"),
    "*.msgpack": ("weights of Flax", "import the model's safetensors"),
    "consolidated.*.pth": ("weights in Meta's own layout", "import the model's safetensors"),
}


def refuse_placeholders(folder: Path, names: Iterable[str]) -> None:
    """Refuse a file that stands for another, is empty, or is linked to nothing."""
    for name in names:
        path = folder / name
        if path.is_symlink() and not path.exists():
            raise BadInput(
                f"{path}: a link to {path.readlink()}, which is not there",
                remedy="download the model again, or copy it with the files that it links to",
            )
        if path.is_file() and (found := what_it_is(path)) and found in BEGINNINGS.values():
            raise BadInput(f"{path}: {found[0]}", remedy=found[1])


def refuse_other_than_folder(path: Path) -> NoReturn:
    """Refuse a file, or nothing (an `OSError`), in place of a model's folder."""
    path.stat()  # what is missing
    what, remedy = what_it_is(path) or ("a file", f"give the folder that holds it and {CONFIG}")
    raise BadInput(f"{path}: {what}, not a model's folder", remedy=remedy)


def refuse_missing(path: Path, *, remedy: str) -> NoReturn:
    """Refuse a folder without the file `path`; say what it holds in its place."""
    folder = path.parent
    refuse_placeholders(folder, [path.name])
    if path.name.endswith(WEIGHTS_SUFFIX):
        _refuse_other_weights(path)
    if partial := _partial_download(folder):
        raise BadInput(
            f"{folder}: no {path.name}, and {partial} is a download that was not finished",
            remedy="download the model again; `hf download` continues where it stopped",
        )
    raise BadInput(f"{folder}: no {path.name}", remedy=remedy)


def refuse_unknown_folder(folder: Path, *, remedy: str) -> NoReturn:
    """Refuse a folder without `config.json`, as what it is."""
    if (folder / "adapter_config.json").is_file():
        raise BadInput(
            f"{folder}: an adapter without its base model, {_base_of(folder)}",
            remedy=f"put the base's files beside it ({CONFIG}, {WEIGHTS}, the tokenizer's)",
        )
    for pattern, (what, other) in OTHER_LIBRARIES.items():
        if found := next(folder.glob(pattern), None):
            raise BadInput(f"{folder}: no {CONFIG}; {found.name} is {what}", remedy=other)
    inner = sorted(
        path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{CONFIG}")
    )
    if inner:
        shown = ", ".join(map(str, inner[:3]))
        raise BadInput(f"{folder}: no {CONFIG}", remedy=f"give the model's own folder: {shown}")
    refuse_missing(folder / CONFIG, remedy=remedy)


def _refuse_other_weights(path: Path) -> None:
    folder = path.parent
    if "-of-" in path.name:  # one of several, which the index names
        return
    pickles = sorted(each.name for each in folder.iterdir() if each.suffix in PICKLES)
    parts = sorted(each.name for each in folder.glob(f"*-of-*{WEIGHTS_SUFFIX}"))
    if path.name == WEIGHTS and parts:
        raise BadInput(
            f"{folder}: no {path.name}, and {parts[0]} is one part of several without their index",
            remedy=f"download {WEIGHTS}.index.json and every part that it names",
        )
    if pickles:
        raise BadInput(
            f"{folder}: no {path.name}, and {pickles[0]} may run code when opened and is never "
            "read",
            remedy=CONVERT,
        )
    for pattern, (what, remedy) in OTHER_LIBRARIES.items():
        if found := next(folder.glob(pattern), None):
            raise BadInput(f"{folder}: no {path.name}; {found.name} is {what}", remedy=remedy)


def _partial_download(folder: Path) -> str | None:
    patterns = ("*.incomplete", "*.part", "*.crdownload", "*.aria2")
    places = (folder, folder / ".cache" / "huggingface" / "download", folder / "../../blobs")
    found = [path for place in places for pattern in patterns for path in place.glob(pattern)]
    return found[0].name if found else None


def _base_of(folder: Path) -> str:
    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        return str(config.get("base_model_name_or_path") or "which it does not name")[:200]
    except (OSError, ValueError, AttributeError, RecursionError):
        return "which it does not name"
