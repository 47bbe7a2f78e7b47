"""Images: squares of one size, grey or RGB; PNG samples; contact sheets."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from db.errors import Refused
from worker.data.arrays import ArrayWriter, SplitsAndLabels
from worker.data.dataset import CAPTIONS, Shape
from worker.data.split import Ratio
from worker.media.base import (
    Content,
    Downloads,
    Intake,
    Medium,
    Page,
    SampleFiles,
    SourceFormat,
    Whole,
)
from worker.media.samples.contact_sheet import contact_sheet
from worker.media.samples.containers import Output, Tar
from worker.media.samples.png import encode_png, read_png
from worker.media.samples.record import Record
from worker.media.sources import idx, image_files
from worker.media.sources.captions import read_captions
from worker.media.sources.folder_labels import folder_labels
from worker.media.sources.image_files import ImageItem

SIDES = (4, 1024)  # the least and the greatest side of stored images, in pixels
MODES = ("L", "RGB")  # grey, colour


def take_idx(intake: Intake) -> Content:
    """IDX files as a dataset; of the images' own size and mode where none is asked for."""
    found = idx.open_idx(intake.path, intake.rejects)
    size, mode = intake.options.get("size", found.size), intake.options.get("mode", found.mode)
    items = idx.read_idx(found, size=size, mode=mode)
    return write_images(items, intake.folder, labels=found.labels, ratio=intake.ratio)


def take_image_files(intake: Intake) -> Content:
    """A folder or zip of images as a dataset; sub-folders are labels, `metadata.jsonl` captions."""
    headers = image_files.read_headers(intake.path)
    labels = folder_labels(headers.folders)
    captions = read_captions(intake.path, intake.rejects)
    items = image_files.read_images(
        intake.path,
        labels,
        captions,
        intake.rejects,
        size=intake.options.get("size", headers.size),
        mode=intake.options.get("mode", headers.mode),
    )
    return write_images(
        items,
        intake.folder,
        labels=labels.labels,
        ratio=intake.ratio,
        captioned=bool(captions),
    )


def write_images(
    items: Iterable[ImageItem],
    folder: Path,
    *,
    labels: tuple[str, ...],
    ratio: Ratio,
    captioned: bool = False,
) -> Content:
    """Write `images.npy`, `split.npy`, where labelled `labels.npy`, and `captions.jsonl` where
    `captioned`.

    All items are of one shape, and all or none are labelled. Labels that no image has are dropped.
    """
    noted = SplitsAndLabels()
    captions = (folder / CAPTIONS).open("w", encoding="utf-8") if captioned else nullcontext()
    with ArrayWriter(folder / "images.npy") as images, captions as lines:
        for item in items:
            images.append(item.pixels)
            noted.add(item.pixels.tobytes(), item.label, item.split)
            if lines is not None:
                lines.write(json.dumps({"text": item.caption}, ensure_ascii=False) + "\n")
    if not images.rows:
        return Shape("image"), (0, 0, 0)
    used, counts = noted.write(folder, labels, ratio)
    size, _, channels = images.row_shape
    return Shape("image", used, size, channels), counts


class ImageMedium(Medium):
    """Images."""

    name = "image"
    precedence = 0
    options = ("size", "mode")
    sources = (
        SourceFormat("idx", "IDX files or a folder of them", take_idx, recognises=idx.is_idx),
        SourceFormat(
            "pictures",
            "a folder or zip of images",
            take_image_files,
            inside=image_files.SUFFIXES,
        ),
    )
    signature = b"\x89PNG"
    suffix = ".png"
    container = Tar
    downloads: ClassVar[Downloads] = {
        "files": SampleFiles(lambda sample, record: {".json": record, ".png": sample}),
        "webdataset": Whole.OBJECTS,
        "jsonl": Whole.RECORDS,
    }
    page = Page(rows=10, columns=10, micro_batch=8, suffix=".png", media_type="image/png")
    pipeline_tag = "unconditional-image-generation"

    def encode(self, output: Output, record: Record, shape: Shape) -> bytes:
        """A PNG of a uint8 (H, W, 1 or 3) image."""
        return encode_png(output, record)

    def read_record(self, data: bytes) -> Record:
        """What the PNG's text chunk holds."""
        return read_png(data)

    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """A contact sheet."""
        columns = self.page.columns
        images = [np.asarray(output) for output in outputs]
        rows = [images[first : first + columns] for first in range(0, len(images), columns)]
        contact_sheet(rows).save(path)

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse sizes and modes out of bounds as well."""
        super().check_options(name, options)
        size, mode = options.get("size"), options.get("mode")
        if size is not None and not SIDES[0] <= size <= SIDES[1]:
            raise Refused(f"size {size}: from {SIDES[0]} to {SIDES[1]} pixels a side")
        if mode not in {None, *MODES}:
            raise Refused(f"mode {mode!r}: L (grey) or RGB")


MEDIUM = ImageMedium()
