"""Turn a user's files into a dataset version: arrays or rows, and the manifest that names them.

Needs NumPy and Pillow only, so that `dataset add` runs where no torch is. Reads what it is given as
a stream: memory grows by some bytes an item, never by its content, captions apart. One bad file
among good ones is reported and left out; a data set with nothing good in it is refused.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from db.errors import BadInput, Refused
from worker.data import captions
from worker.data.arrays import write_images, write_sounds
from worker.data.dataset import Shape
from worker.data.source_files import members
from worker.data.split import Counts, Ratio, checked_ratio
from worker.files import canonical_json, digest_of, disk_errors
from worker.media import idx, pictures, recordings, texts
from worker.music import midi

Kind = Literal["image", "text", "audio"]
Mode = Literal["L", "RGB"]
Written = tuple[Shape, Counts]

SIZES = (4, 1024)  # the least and the greatest side of stored images, in pixels
MAX_REPORTED = 1000

_TAKEN = (
    "taken are IDX files or a folder of them, a folder or zip of pictures or of WAV sounds, "
    "a .txt file, a folder or zip of them or of MIDI files, and .jsonl"
)


@dataclass(frozen=True)
class Reject:
    """A file or line that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Ingested:
    """What became of the files; `rejects` holds the first `MAX_REPORTED` of those left out."""

    manifest: dict[str, Any]
    rejects: list[Reject]


class _Rejects:
    """Counts what is left out, and remembers the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Reject] = []

    def __call__(self, name: str, reason: str) -> None:
        self.count += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(Reject(name, reason))


@dataclass(frozen=True)
class _Order:
    """What the user asked for."""

    path: Path
    folder: Path
    size: int | None
    mode: Mode | None
    ratio: Ratio
    reject: _Rejects


def ingest(
    path: Path,
    folder: Path,
    *,
    kind: Kind | None = None,
    size: int | None = None,
    mode: Mode | None = None,
    split: Sequence[int] = (90, 5, 5),
) -> Ingested:
    """Write the data at `path` into the empty `folder` as `LocalDataset` describes.

    The form is told from the files themselves. Images become `size` pixels a side (the data's own
    where None) in `mode`. Equal files give equal bytes, and so an equal manifest. Raises `BadInput`
    or `Refused` with what is wrong and what is taken.
    """
    order = _Order(path, folder, size, mode, checked_ratio(split), _Rejects())
    _check(order, kind)
    form = _form(path, kind)
    _check_pixels(order, _KINDS[form])
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty")
        shape, counts = _WRITERS[form](order)
        if not sum(counts):
            raise BadInput(_nothing_good(order))
        manifest = _manifest(order, form, shape, counts)
        (folder / "manifest.json").write_bytes(canonical_json(manifest))
    return Ingested(manifest, order.reject.first)


def _check(order: _Order, kind: str | None) -> None:
    if kind not in {None, "image", "text", "audio"}:
        raise Refused(f"kind {kind!r}: Genmill takes image, text and audio")
    if order.size is not None and not SIZES[0] <= order.size <= SIZES[1]:
        raise Refused(f"size {order.size}: from {SIZES[0]} to {SIZES[1]} pixels a side")
    if order.mode not in {None, "L", "RGB"}:
        raise Refused(f"mode {order.mode!r}: L (grey) or RGB")
    if not order.path.exists():
        raise BadInput(f"{order.path}: no such file or folder")


def _form(path: Path, kind: str | None) -> str:
    """Which writer takes the data, by what the files are; `kind` where they may be two things."""
    if path.is_dir() or zipfile.is_zipfile(path):
        form = _form_of_many(path, kind)
    elif path.suffix.lower() == ".zip":
        raise BadInput(f"{path.name}: not a zip, or one cut short; fetch or pack it again")
    elif path.suffix.lower() == ".jsonl":
        form = "jsonl"
    elif path.suffix.lower() == ".txt" or kind == "text":
        form = "text"
    else:
        _refuse_no_idx(path)
        form = "idx"
    if kind and kind != _KINDS[form]:
        raise BadInput(f"{path.name}: {_KINDS[form]} data, and kind {kind!r} was asked for")
    return form


def _check_pixels(order: _Order, kind: str) -> None:
    """Refuse what only pictures have."""
    for what, value in (("size", order.size), ("mode", order.mode)):
        if value is not None and kind != "image":
            raise Refused(f"{what} {value}: for pictures; {order.path.name} is {kind} data")


def _refuse_no_idx(path: Path) -> None:
    try:
        idx.shape_of(path)
    except BadInput as error:
        raise BadInput(f"{error}; {_TAKEN}") from None


def _form_of_many(path: Path, kind: str | None) -> str:
    suffixes = {member.suffix for member in members(path)}
    if not suffixes:
        raise BadInput(f"{path.name}: the folder is empty; {_TAKEN}")
    if kind in {None, "image"} and suffixes & pictures.SUFFIXES:
        return "pictures"
    if kind in {None, "audio"} and suffixes & recordings.SUFFIXES:
        return "sounds"
    if kind in {None, "text"} and suffixes & {*midi.SUFFIXES}:
        return "music"
    if kind in {None, "text"} and ".txt" in suffixes:
        return "texts"
    if path.is_dir() and any(idx.is_idx(each) for each in path.iterdir() if each.is_file()):
        return "idx"
    raise BadInput(f"{path.name}: nothing usable among {', '.join(sorted(suffixes))}; {_TAKEN}")


def _write_idx(order: _Order) -> Written:
    found = idx.survey(order.path)
    size, mode = order.size or found.size, order.mode or found.mode
    items = idx.items(found, size=size, mode=mode)
    return write_images(items, order.folder, labels=found.labels, ratio=order.ratio)


def _write_pictures(order: _Order) -> Written:
    seen = pictures.survey(order.path)
    plan = pictures.layout(seen.folders)
    size, mode = order.size or seen.size, order.mode or seen.mode
    found = captions.survey(order.path, order.reject)
    captioned = bool(found)
    items = pictures.items(order.path, plan, found, size=size, mode=mode, reject=order.reject)
    return write_images(
        items, order.folder, labels=plan.labels, ratio=order.ratio, captioned=captioned
    )


def _write_sounds(order: _Order) -> Written:
    plan = recordings.planned(recordings.survey(order.path))
    items = recordings.items(order.path, plan, reject=order.reject)
    return write_sounds(items, order.folder, labels=plan.labels, rate=plan.rate, ratio=order.ratio)


def _write_text(order: _Order) -> Written:
    target = order.folder / "documents.jsonl"
    return Shape("text"), texts.write_text(order.path, target, order.ratio)


def _write_texts(order: _Order) -> Written:
    rows = texts.files_of(order.path, order.reject)
    return Shape("text"), texts.write_rows(rows, order.folder / "documents.jsonl", order.ratio)


def _write_music(order: _Order) -> Written:
    """MIDI files as texts in the language of `worker.music.notes`."""
    rows = texts.files_of(order.path, order.reject, suffixes=midi.SUFFIXES, read=midi.text_of)
    return Shape("text"), texts.write_rows(rows, order.folder / "documents.jsonl", order.ratio)


def _write_jsonl(order: _Order) -> Written:
    rows = texts.lines_of(order.path, order.reject)
    return Shape("text"), texts.write_rows(rows, order.folder / "documents.jsonl", order.ratio)


_WRITERS: dict[str, Callable[[_Order], Written]] = {
    "idx": _write_idx,
    "pictures": _write_pictures,
    "sounds": _write_sounds,
    "text": _write_text,
    "texts": _write_texts,
    "music": _write_music,
    "jsonl": _write_jsonl,
}
_KINDS = {
    "idx": "image",
    "pictures": "image",
    "sounds": "audio",
    "text": "text",
    "texts": "text",
    "music": "text",
    "jsonl": "text",
}


def _nothing_good(order: _Order) -> str:
    text = f"{order.path.name}: nothing usable in it"
    if not order.reject.count:
        return f"{text}; {_TAKEN}"
    first = order.reject.first[0]
    return f"{text}; {order.reject.count} left out, the first: {first.name}: {first.reason}"


def _manifest(
    order: _Order, form: str, shape: Shape, counts: tuple[int, int, int]
) -> dict[str, Any]:
    """No times and no paths: equal data have equal manifests."""
    objects = [
        {"name": each.name, "sha256": digest_of(each), "size": each.stat().st_size}
        for each in sorted(order.folder.iterdir())
    ]
    return {
        "kind": shape.media,
        "labels": list(shape.labels),
        "counts": dict(zip(("train", "validation", "test"), counts, strict=True)),
        "shape": shape.to_json(),
        "objects": objects,
        "source": {"name": order.path.resolve().name, "format": form},
        "split": list(order.ratio),
        "rejected": order.reject.count,
    }
