"""Images: square, of one size, grey or RGB; PNG samples; contact sheets."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.data.arrays import ArrayWriter, SplitsAndLabels
from worker.data.dataset import CAPTIONS, LocalDataset, Shape
from worker.data.split import Ratio
from worker.media.base import (
    CombinedFiles,
    Content,
    Downloads,
    Intake,
    Medium,
    Page,
    SampleFiles,
    SourceFormat,
)
from worker.media.samples.contact_sheet import contact_sheet, shrink
from worker.media.samples.containers import Output, SampleRecord, Tar
from worker.media.samples.png import encode_png, read_pixels, read_png_record
from worker.media.samples.record import Record
from worker.media.sources import idx, image_files
from worker.media.sources.annotations import describe_reading, read_annotations
from worker.media.sources.image_files import ImageItem

SIDES = (4, 1024)  # smallest and largest side of stored images, in pixels
MODES = ("L", "RGB")  # grey, colour


def take_idx(intake: Intake) -> Content:
    """IDX files as a dataset, by default in their own size and mode."""
    found = idx.open_idx(intake.source, intake.rejects)
    size, mode = intake.options.get("size", found.size), intake.options.get("mode", found.mode)
    items = idx.read_idx(found, size=size, mode=mode)
    intake.reading.update(found.describe())
    return write_images(items, intake.folder, labels=found.labels, ratio=intake.ratio)


def take_image_files(intake: Intake) -> Content:
    """Images as a dataset; labels and captions come from tables, text files and folders."""
    notes = read_annotations(intake.source, image_files.SUFFIXES, intake.rejects)
    headers = image_files.read_headers(intake.source)
    layout = headers.names.layout(labelled=not notes.labels)
    items = image_files.read_images(
        intake.source,
        layout,
        notes,
        intake.rejects,
        size=intake.options.get("size", headers.size),
        mode=intake.options.get("mode", headers.mode),
    )
    intake.reading.update(describe_reading(layout, notes))
    return write_images(
        items,
        intake.folder,
        labels=notes.labels or layout.labels,
        ratio=intake.ratio,
        captioned=notes.captioned,
    )


def write_images(
    items: Iterable[ImageItem],
    folder: Path,
    *,
    labels: tuple[str, ...],
    ratio: Ratio,
    captioned: bool = False,
) -> Content:
    """Write `images.npy`, `split.npy`, `labels.npy` if labelled, `captions.jsonl` if `captioned`.

    All images have one shape, and either all are labelled or none. Labels that no image has are
    dropped.
    """
    splits = SplitsAndLabels()
    captions = (folder / CAPTIONS).open("w", encoding="utf-8") if captioned else nullcontext()
    with ArrayWriter(folder / "images.npy") as images, captions as lines:
        for item in items:
            images.append(item.pixels)
            splits.add(item.pixels.tobytes(), item.label, item.split)
            if lines is not None:
                lines.write(json.dumps({"text": item.caption}, ensure_ascii=False) + "\n")
    if not images.rows:
        return Shape("image"), (0, 0, 0)
    used, counts = splits.write(folder, labels, ratio)
    size, _, channels = images.row_shape
    return Shape("image", used, size, channels), counts


class ImageMedium(Medium):
    """Images."""

    name = "image"
    precedence = 0
    options = ("size", "mode")
    sources = (
        SourceFormat(
            "idx", "IDX files or a folder or archive of them", take_idx, recognises=idx.is_idx
        ),
        SourceFormat(
            "pictures",
            "a folder or archive of images",
            take_image_files,
            member_suffixes=image_files.SUFFIXES,
        ),
    )
    signature = b"\x89PNG"
    suffix = ".png"
    container = Tar
    downloads: ClassVar[Downloads] = {
        "files": SampleFiles(lambda sample, record: {".json": record, ".png": sample}),
        "webdataset": CombinedFiles.OBJECTS,
        "jsonl": CombinedFiles.RECORDS,
    }
    evaluated = 10_000
    pictured = True
    page = Page(rows=10, columns=10, micro_batch=8, suffix=".png", media_type="image/png")
    pipeline_tag = "unconditional-image-generation"

    def encode(self, samples: Sequence[SampleRecord], shape: Shape) -> list[bytes]:
        """PNG files of uint8 (H, W, 1 or 3) images."""
        return encode_png(samples)

    def read_record(self, data: bytes) -> Record:
        """The record in the PNG file's text chunk."""
        return read_png_record(data)

    def content(self, data: bytes) -> bytes:
        """The pixels."""
        return read_pixels(data).tobytes()

    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """Write a contact sheet."""
        columns = self.page.columns
        images = [np.asarray(output) for output in outputs]
        rows = [images[first : first + columns] for first in range(0, len(images), columns)]
        contact_sheet(rows).save(path)

    def read_samples(self, dataset: LocalDataset, numbers: Sequence[int]) -> Sequence[Output]:
        """Images, uint8 (H, W, C)."""
        images = dataset.array("images")  # memory-mapped
        return [images[number] for number in numbers]

    def pictures(self, samples: Sequence[Output], shape: Shape) -> npt.NDArray[np.uint8]:
        """The images; those above 64 pixels a side are averaged down to it."""
        return shrink(samples, size=shape.size, channels=shape.channels)

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Also refuse sizes and modes out of bounds."""
        super().check_options(name, options)
        size, mode = options.get("size"), options.get("mode")
        if size is not None and not SIDES[0] <= size <= SIDES[1]:
            raise Refused(
                f"images cannot be {size} pixels a side", remedy=f"use {SIDES[0]} to {SIDES[1]}"
            )
        if mode not in {None, *MODES}:
            raise Refused(f"no image mode {mode!r}", remedy="use L (grey) or RGB")


MEDIUM = ImageMedium()
