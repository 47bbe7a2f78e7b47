"""Where a sample came from: the JSON record that it carries, and how PNG and WAV files hold it.

A record names what the bytes depend on and nothing else: no job, shard, worker or time, so that the
same sample has the same bytes however the work was cut. `reproduce` needs only what is in it.
It also says that the content is AI-generated, in the word of IPTC's vocabulary, which the EU's and
the big platforms' labels read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from db.errors import BadInput
from worker.media.samples.wav import read_info

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

Record = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """What all samples of one generation share."""

    family: str
    model: str  # pinned, "digits:3"
    weights_sha256: str
    seed: int
    sampling: Mapping[str, Any]  # the family's sampling settings, all of them
    micro_batch: int  # as it ran: out of memory may have halved what `sampling` asked for
    device: str = "cpu"  # the type, for bytes are equal within one: cpu | cuda
    precision: str = "fp32"
    dataset: str | None = None  # pinned, "mnist:1": of the images that samples are made from
    genmill: str = field(default_factory=lambda: version("genmill"))
    torch: str = field(default_factory=lambda: version("torch"))

    def record(
        self,
        index: int,
        *,
        label: str | None = None,
        prompt: str | None = None,
        custom_id: str | None = None,
    ) -> Record:
        """The record of sample `index`: plain data, always the same keys in the same order."""
        settings = {k: v for k, v in self.sampling.items() if k != "micro_batch"}
        return {
            "custom_id": custom_id,
            "index": index,
            "seed": self.seed,
            "label": label,
            "prompt": prompt,
            "model": self.model,
            "family": self.family,
            "weights_sha256": self.weights_sha256,
            "dataset": self.dataset,
            "sampling": settings,
            "micro_batch": self.micro_batch,
            "device": self.device,
            "precision": self.precision,
            "genmill": self.genmill,
            "torch": self.torch,
            "digital_source_type": AI_GENERATED,
        }


def to_json(record: Mapping[str, Any]) -> str:
    """A record in one line of JSON, in its own order, with every language's letters as they are."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def parameters(record: Mapping[str, Any], size: tuple[int, int]) -> str:
    """The text that AUTOMATIC1111's web UI writes into its PNGs; `size` is (width, height).

    A line with the prompt (here the label where there is no prompt), then `Key: value` pairs that
    start with `Steps`, by which readers find that line.
    """
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
    return text + "\n" + ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items())


def png_text(record: Mapping[str, Any], size: tuple[int, int]) -> PngImagePlugin.PngInfo:
    """The text chunks of a sample's PNG: `parameters` for other tools, `genmill` for ours."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", parameters(record, size))
    info.add_text("genmill", to_json(record))
    return info


def read_png(source: Path | bytes) -> Record:
    """The record inside a PNG that Genmill made; raise `BadInput` where there is none."""
    name = str(source) if isinstance(source, Path) else "the picture"
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            record = json.loads(image.info["genmill"])
    except KeyError:
        raise BadInput(f"{name} has no text chunk 'genmill': Genmill did not make it") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{name} is not a PNG with a readable record: {error}") from None
    if not isinstance(record, dict):
        raise BadInput(f"{name}: the text chunk 'genmill' holds {record!r}, not a record")
    return record


def wav_info(record: Mapping[str, Any]) -> dict[str, str]:
    """The comments of a sample's WAV: the program in `ISFT`, the record in `ICMT`."""
    return {"ISFT": f"genmill {record['genmill']}", "ICMT": to_json(record)}


def read_wav_record(source: Path | bytes) -> Record:
    """The record inside a WAV that Genmill made; raise `BadInput` where there is none."""
    name = str(source) if isinstance(source, Path) else "the sound"
    info = read_info(source if isinstance(source, bytes) else source.read_bytes())
    if not info.get("ISFT", "").startswith("genmill "):
        raise BadInput(f"{name} has no comment of Genmill's: Genmill did not make it")
    try:
        record = json.loads(info.get("ICMT", ""))
    except ValueError as error:
        raise BadInput(f"{name} has no readable record: {error}") from None
    if not isinstance(record, dict):
        raise BadInput(f"{name}: the comment holds {record!r}, not a record")
    return record


def read_record(data: bytes) -> Record:
    """The record inside a sample's bytes, whatever it is; raise `BadInput` where there is none."""
    if data.startswith(b"RIFF"):
        return read_wav_record(data)
    if data.startswith(b"{"):  # a line of text's JSON Lines
        record: Record = json.loads(data)
        return record
    return read_png(data)


def _quoted(value: Any) -> str:
    """Quote as AUTOMATIC1111 does: where a comma, colon or line break would mislead a reader."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",:\n") else text
