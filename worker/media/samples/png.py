"""Samples as PNG files with their records in text chunks, for Genmill and for other tools."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from db.errors import BadInput, NonFinite
from worker.media.samples.containers import Output, describe
from worker.media.samples.record import Record, parse_record, to_json


def encode_png(output: Output, record: Record) -> bytes:
    """A PNG file of a uint8 (H, W, 1 or 3) image, with its record inside."""
    if isinstance(output, str) or output.dtype != np.uint8 or output.ndim != 3:
        raise NonFinite(
            f"sample {record['index']} is {describe(output)}, not a uint8 (H, W, C) image"
        )
    height, width, channels = output.shape
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", parameters(record, (width, height)))
    text.add_text("genmill", to_json(record))
    buffer = BytesIO()
    image = Image.fromarray(output[:, :, 0] if channels == 1 else output)
    image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def parameters(record: Mapping[str, Any], size: tuple[int, int]) -> str:
    """The text that AUTOMATIC1111's web UI writes into PNG files; `size` is (width, height).

    A line with the prompt (here the label if there is no prompt), then a line of `Key: value` pairs
    that begins with `Steps`, by which readers find it.
    """

    def quoted(value: Any) -> str:
        # as AUTOMATIC1111 does, where a comma, colon or line break would mislead a reader
        shown = str(value)
        return json.dumps(shown, ensure_ascii=False) if any(c in shown for c in ",:\n") else shown

    pairs = {
        "Steps": 1,
        "Sampler": record["family"],
        "Seed": record["seed"],
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": record["weights_sha256"][:10],
        "Model": record["model"],
        "Sample": record["index"],
        **{name.replace("_", " ").capitalize(): v for name, v in record["sampling"].items()},
        "Version": f"genmill {record['genmill']}",
        "Source type": "AI-generated",
    }
    text = record["prompt"] or record["label"] or ""
    return text + "\n" + ", ".join(f"{key}: {quoted(value)}" for key, value in pairs.items())


def read_png_record(source: Path | bytes) -> Record:
    """The record inside a PNG file made by Genmill; `BadInput` if there is none."""
    name = str(source) if isinstance(source, Path) else "the image"
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            text = image.info["genmill"]
    except KeyError:
        raise BadInput(f"{name} was not made by Genmill: it has no text chunk 'genmill'") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{name} is not a readable PNG: {error}") from None
    return parse_record(text, name)
