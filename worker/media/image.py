"""Images: square, of one size, grey or RGB; PNG samples; contact sheets."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from db.errors import BadInput, Refused
from worker.cleaning.alike.images import AlikeImages
from worker.cleaning.augmentations import Bounds
from worker.cleaning.blank import BlankImages
from worker.cleaning.denoise import MedianFilter, NonLocalMeans, find_filter
from worker.cleaning.recipe import CROP, DROP, Recipe
from worker.cleaning.settle import Settlement
from worker.cleaning.steps import Step
from worker.data.arrays import ArrayWriter, keep_rows
from worker.data.dataset import CAPTIONS, LocalDataset, Shape
from worker.data.lines import keep_lines
from worker.data.split import count_splits
from worker.media.base import (
    CombinedFiles,
    Content,
    Downloads,
    Intake,
    Medium,
    Page,
    SampleFiles,
    Sketches,
    SourceFormat,
)
from worker.media.fingerprints import pictures as fingerprints
from worker.media.fingerprints.bits import Fingerprints
from worker.media.samples import picture_label
from worker.media.samples.contact_sheet import contact_sheet, shrink
from worker.media.samples.containers import Output, SampleRecord, Tar
from worker.media.samples.exhibit import LARGEST, Exhibit, draw
from worker.media.samples.parts import Part, png_parts
from worker.media.samples.png import encode_png, has_texts, read_pixels, read_png_record
from worker.media.samples.png_chunks import tag_chunks
from worker.media.samples.png_tags import png_places, read_picture_tags, tag_png
from worker.media.samples.record import Record
from worker.media.samples.tags import Label, Tag
from worker.media.sources import idx, image_files, recognition
from worker.media.sources.annotations import describe_reading, read_annotations
from worker.media.sources.image_files import ImageItem, decode_image
from worker.media.sources.inheritance import labels_of, merge_labels, write_labels

SIDES = (4, 1024)  # smallest and largest side of stored images, in pixels
MODES = ("L", "RGB")  # grey, colour


def take_idx(intake: Intake) -> Content:
    """IDX files as a dataset, by default in their own size and mode."""
    found = idx.open_idx(intake.source, intake.rejects)
    size, mode = intake.options.get("size", found.size), intake.options.get("mode", found.mode)
    fit = intake.options.get("fit", CROP)
    items = idx.read_idx(found, intake.rejects, intake.chain, size=size, mode=mode, fit=fit)
    intake.reading.update(found.describe(size, mode))
    return write_images(items, intake.folder, intake.settlement, labels=found.labels)


def take_image_files(intake: Intake) -> Content:
    """Images as a dataset; labels and captions come from tables, text files and folders."""
    notes = read_annotations(intake.source, image_files.SUFFIXES, intake.rejects)
    headers = image_files.read_headers(intake.source)
    layout = headers.names.layout(labelled=not notes.labels)
    size = intake.options.get("size", headers.size)
    mode = intake.options.get("mode", headers.mode)
    items = image_files.read_images(
        intake.source,
        layout,
        notes,
        intake.rejects,
        intake.chain,
        size=size,
        mode=mode,
        fit=intake.options.get("fit", CROP),
    )
    intake.reading.update(describe_reading(layout, notes) | headers.describe(size, mode))
    return write_images(
        items,
        intake.folder,
        intake.settlement,
        labels=notes.labels or layout.labels,
        captioned=notes.captioned,
    )


def write_images(
    items: Iterable[ImageItem],
    folder: Path,
    settlement: Settlement,
    *,
    labels: tuple[str, ...],
    captioned: bool = False,
) -> Content:
    """Write `images.npy`, `split.npy`, `labels.npy` if labelled, `captions.jsonl` if `captioned`.

    All images have one shape, and either all are labelled or none. Labels that no image has are
    dropped. The images of the version that is updated come first.
    """
    index = settlement.index()
    if settlement.parent is not None:
        _check_captions(settlement.parent, captioned=captioned)
        labels, numbers = merge_labels(settlement.parent, labels)
        new = (each._replace(label=numbers.get(each.label)) for each in items)
        items = itertools.chain(_images_of(settlement.parent), new)
    captions = (folder / CAPTIONS).open("w", encoding="utf-8") if captioned else nullcontext()
    with ArrayWriter(folder / "images.npy") as images, captions as lines:
        for item in items:
            images.append(item.pixels)
            beside = (item.caption or "").encode()
            index.add(item.pixels.tobytes(), item.label, item.split, beside=beside)
            if lines is not None:
                lines.write(json.dumps({"text": item.caption}, ensure_ascii=False) + "\n")
    if not images.rows:
        return Shape("image"), (0, 0, 0)
    path = folder / "images.npy"
    keep, codes = settlement.settle(index, lambda: AlikeImages(np.load(path, mmap_mode="r")))
    keep_rows(path, keep)
    if captioned:
        keep_lines(folder / CAPTIONS, keep)
    used = write_labels(folder, labels, index.labels[keep] if labels else None, codes)
    size, _, channels = images.row_shape
    return Shape("image", used, size, channels), count_splits(codes)


def _images_of(parent: LocalDataset) -> Iterator[ImageItem]:
    """The images of a version, in their splits."""
    images, splits, labels = parent.array("images"), parent.array("split"), labels_of(parent)
    captions = parent.captions() if parent.has_captions else itertools.repeat(None)
    for pixels, split, label, caption in zip(images, splits, labels, captions, strict=False):
        yield ImageItem(pixels, label, int(split), caption)


def _check_captions(parent: LocalDataset, *, captioned: bool) -> None:
    if parent.has_captions != captioned:
        both = ("those of the version", "the new images")
        have, lack = both if parent.has_captions else both[::-1]
        raise BadInput(
            f"{have} have captions, {lack} have none",
            remedy="add captions, or add the new images as another dataset",
        )


class ImageMedium(Medium):
    """Images."""

    name = "image"
    precedence = 0
    policy = {  # noqa: RUF012 - read only
        "primary": {"metric": "kid"},
        "guard": [
            {"metric": "memorisation", "not_worse_by": 0.02, "optional": True},
            {"metric": "class_kl", "not_worse_by": 0.05, "optional": True},
        ],
    }
    options = ("size", "mode", "fit", "denoise")
    smallest = (4, "pixels")
    augmentations: ClassVar[Bounds] = {
        "flip": (0.01, 1),  # left to right; 1 mirrors half of the images
        "shift": (1, 64),  # pixels at most, in each direction
        "crop": (1, 64),  # pixels at most, from each side
        "colour": (0.01, 1),  # share by which brightness, contrast and saturation change at most
        "cutout": (1, 512),  # pixels of the side of a grey square
    }
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
    label_text = "AI生成"
    signature = b"\x89PNG"
    suffix = ".png"
    watermark = "picture_watermark"
    sample_type = "image/png"
    schema_type = "ImageObject"
    container = Tar
    downloads: ClassVar[Downloads] = {
        "files": SampleFiles(
            lambda sample, record: {".json": record, ".png": sample}, (".json", ".png")
        ),
        "webdataset": CombinedFiles.OBJECTS,
        "jsonl": CombinedFiles.RECORDS,
        "parquet": CombinedFiles.TABLE,
        "imagefolder": CombinedFiles.FOLDER,
    }
    feature = "Image"
    recognised = True
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

    def has_record(self, data: bytes, sample: SampleRecord) -> bool:
        """By the text chunks."""
        return has_texts(data, sample)

    def with_tags(self, data: bytes, tags: Sequence[Tag]) -> bytes:
        """In an XMP packet, EXIF fields and text chunks."""
        return tag_png(data, tags)

    def read_tags(self, data: bytes) -> Mapping[str, str]:
        """From a picture of any format."""
        return read_picture_tags(data)

    def tag_bytes(self, data: bytes) -> bytes:
        """The chunks behind the header and the signature."""
        return data[tag_chunks(data)]

    def tag_places(self, name: str, xmp: str) -> tuple[str, ...]:
        """See `Medium`."""
        return png_places(name, xmp)

    def check_label(self, text: str) -> None:
        """Refuse what cannot be drawn."""
        picture_label.check_text(text)

    def label_misfit(self, output: Output, label: Label, shape: Shape) -> str:
        """A label of legible letters may cover a quarter of the picture."""
        height, width = np.asarray(output).shape[:2]
        return picture_label.misfit(label, width, height)

    def with_label(self, output: Output, label: Label, shape: Shape) -> Output:
        """In the lower right corner."""
        return picture_label.with_label(np.asarray(output), label)

    def has_label(self, data: bytes, label: Label) -> bool:
        """By the pixels of the corner."""
        own = self.claims(data)
        pixels = read_pixels(data) if own else decode_image(data, lambda it: it.convert("RGB"))
        return picture_label.has_label(np.asarray(pixels), label)

    def decode(self, data: bytes) -> Output:
        """The pixels, (H, W, C)."""
        pixels = read_pixels(data)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def content(self, data: bytes) -> bytes:
        """The pixels."""
        return read_pixels(data).tobytes()

    def parts(self, data: bytes) -> Iterator[Part]:
        """The chunks of a PNG file."""
        return png_parts(data)

    def fingerprints(self, outputs: Sequence[Output], shape: Shape) -> Fingerprints:
        """Of the lowest frequencies of the pictures' middles."""
        return fingerprints.of_pictures(np.stack([np.asarray(each) for each in outputs]))

    def fingerprints_of_file(self, data: bytes) -> Fingerprints:
        """Of a picture that was cropped in one of several ways."""
        return fingerprints.of_picture_file(data)

    def copy_distance(self, sample: bytes, data: bytes) -> float:
        """That of the pixels, at the best size or crop."""
        whole, copy = (fingerprints.read_brightness(each) for each in (sample, data))
        cropped = fingerprints.cropped_distance(whole, copy)
        return min(cropped, recognition.difference(sample, data))

    def sketches(self, samples: Sequence[bytes]) -> Sketches:
        """The lowest frequencies of the pictures."""
        return recognition.sketches(samples)

    def sketch_of_file(self, data: bytes) -> Sketches:
        """The lowest frequencies of a picture."""
        return recognition.sketch_of_file(data)

    def difference(self, sample: bytes, data: bytes) -> float:
        """That of the pixels."""
        return recognition.difference(sample, data)

    def exhibit(self, data: bytes) -> Exhibit:
        """The picture."""
        pixels = read_pixels(data)
        height, width = pixels.shape[:2]
        if max(height, width) <= LARGEST:
            return Exhibit(data, (width, height))  # with all of its marks
        return Exhibit(*draw(Image.fromarray(pixels)))

    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """Write a contact sheet."""
        columns = self.page.columns
        images = [np.asarray(output) for output in outputs]
        rows = [images[first : first + columns] for first in range(0, len(images), columns)]
        contact_sheet(rows).save(path)

    def cleaning(self, recipe: Recipe) -> list[Step]:
        """Blank images, noise."""
        steps: list[Step] = [BlankImages()] if recipe.blank == DROP else []
        if recipe.denoise is not None:
            filters = {"median": MedianFilter, "nlm": NonLocalMeans}
            steps.append(find_filter(filters, recipe.denoise, "images")())
        return steps

    def contents(self, dataset: LocalDataset) -> Iterator[bytes]:
        """The pixels."""
        return (pixels.tobytes() for pixels in dataset.array("images"))

    def outputs(self, dataset: LocalDataset, items: Sequence[int]) -> list[Output]:
        """The pixels of some images."""
        images = dataset.array("images")
        return [np.array(images[item]) for item in items]

    def recipe_for(self, shape: Shape) -> dict[str, Any]:
        """Also the size and the mode."""
        mode = MODES[0] if shape.channels == 1 else MODES[1]
        return super().recipe_for(shape) | {"size": shape.size, "mode": mode}

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
