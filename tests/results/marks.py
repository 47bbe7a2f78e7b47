"""What marks survive: for each medium and profile, 200 samples through the queue, then changed.

Writes `results/marks.md`: what `genmill provenance verify` and each mark say of the samples, of
changed copies of them, and of files that were never here.
"""

import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tests.results.classifier import read_idx
from tests.results.copies import CHANGES
from tests.results.machine import DATA, PICTURES, Machine, Result

COUNT = 200
FOREIGN = {"image": 10_000, "audio": 1000, "text": 1000}
PROFILES = ("none", "eu-art50", "cn-gb45438")
MODELS = {  # short trainings: what samples show does not matter here
    "digits": ("image", "gan", "mnist", ["--max-steps", "100"]),
    "photos": ("image", "gan", "photos", ["--max-steps", "40"]),
    "voice": ("audio", "wavenet", "spoken", ["--max-steps", "10"]),
    "prose": ("text", "gpt", "shakespeare", ["--max-steps", "60"]),
}
DATASETS = {
    "mnist": ("mnist",),
    "photos": ("cifar10-images.zip", "--size", "64"),
    "spoken": ("spoken-digits.zip",),
    "shakespeare": ("tinyshakespeare.txt",),
}
SETTINGS = {"prose": ["--set", "max_tokens=400"], "voice": ["--set", "seconds=0.5"]}
HEAD = "| model | profile | files | verdicts | right sample | marks |"
PAGE = 1000  # characters of a text that no model wrote

Document = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What was found of some files of one kind."""

    model: str
    profile: str
    files: str
    found: Sequence[Document]
    right: int  # that named the job and the sample that they were made from

    def marks(self) -> str:
        """How many files each mark was present in, damaged in, or does not say anything of."""
        names = {each["mark"] for one in self.found for each in one["marks"]}
        return "; ".join(f"{name} {told}" for name in sorted(names) if (told := self._told(name)))

    def _told(self, name: str) -> str:
        states = Counter(
            each["state"] for one in self.found for each in one["marks"] if each["mark"] == name
        )
        kept = {state: states[state] for state in ("present", "damaged") if states[state]}
        return ", ".join(f"{count} {state}" for state, count in kept.items())

    def __str__(self) -> str:
        verdicts = Counter(one["verdict"] for one in self.found)
        told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        cells = (self.model, self.profile, self.files, told, str(self.right), self.marks())
        return f"| {' | '.join(cells)} |"


def marks_and_changes(machine: Machine) -> list[Result]:
    """Mark, change and verify samples of every medium; count files that are taken for ours."""
    _prepare(machine)
    rows = [
        row for name in MODELS for profile in PROFILES for row in _of_job(machine, name, profile)
    ]
    rows += [row for name in MODELS for row in _strangers(machine, name)]
    PICTURES.mkdir(exist_ok=True)
    lines = [HEAD, "| --- " * 6 + "|", *map(str, rows)]
    Path(PICTURES, "marks.md").write_text("\n".join(lines) + "\n", "utf-8")
    return [*map(_result, rows)]


def _result(row: Row) -> Result:
    case = f"{row.model}, {row.profile}, {row.files}"
    taken = sum(each["ours"] is True for each in row.found)
    if row.profile == "strangers":
        return Result(
            case,
            f"{taken} of {len(row.found)} taken for ours",
            "<= 0.1%",
            taken <= len(row.found) // 1000,
        )
    whole = row.files == "as downloaded"
    least = COUNT if whole or row.files == "one bit flipped" else 0
    figure = f"{taken} of {COUNT} ours, {row.right} by their number"
    return Result(case, figure, f">= {least}", taken >= least)


def _prepare(machine: Machine) -> None:
    for purpose in ("signing", "watermark"):
        machine.run("key", "create", purpose)
    for name, (source, *options) in DATASETS.items():
        machine.run("dataset", "add", name, DATA / source, *options)
    for name, (_, family, dataset, steps) in MODELS.items():
        words = ["--dataset", dataset, "--name", name, "--seed", "1", *steps]
        machine.run("enqueue", "train", family, *words, "--wait")


def _of_job(machine: Machine, name: str, profile: str) -> Iterator[Row]:
    words = ["--count", str(COUNT), "--seed", "7", "--marks", profile, *SETTINGS.get(name, [])]
    job = machine.run("enqueue", "generate", name, *words, "--wait")
    folder = machine.folder / name / profile
    machine.run("artifact", "download", job, "-o", folder / "samples", "--as", "files")
    suffix = {"image": ".png", "audio": ".wav", "text": ".json"}[MODELS[name][0]]
    samples = sorted((folder / "samples").glob(f"*{suffix}"))
    yield _row(machine, (name, profile, "as downloaded"), job, samples)
    for way, change in CHANGES[MODELS[name][0]].items():
        target = folder / way.replace(" ", "-")
        target.mkdir()
        copies = []
        for sample in samples:
            ending, data = change(sample.read_bytes())
            copies.append(target / f"{sample.stem}{ending}")
            copies[-1].write_bytes(data)
        yield _row(machine, (name, profile, way), job, copies)


def _row(machine: Machine, named: tuple[str, str, str], job: str, files: Sequence[Path]) -> Row:
    found = _verified(machine, files)
    right = sum(
        each["ours"] is True
        and job in {each["job"], *each["also"]}
        and each["sample"] == int(path.stem)
        for path, each in zip(files, found, strict=True)
    )
    return Row(*named, found, right)


def _verified(machine: Machine, files: Sequence[Path]) -> list[Document]:
    found = []
    for first in range(0, len(files), 500):  # a command line has a longest length
        _, out = machine.try_to_run("provenance", "verify", *files[first : first + 500], "--json")
        found += json.loads(out)
    return found


def _strangers(machine: Machine, name: str) -> Iterator[Row]:
    """Files of the same kind that no model made."""
    folder = machine.folder / "strangers" / name
    folder.mkdir(parents=True)
    files = []
    for file_name, data in STRANGERS[name]():
        files.append(folder / file_name)
        files[-1].write_bytes(data)
    yield Row(
        name, "strangers", f"{len(files):,} that were never here", _verified(machine, files), 0
    )


def _digits() -> Iterator[tuple[str, bytes]]:
    """Test digits: like those that the model learnt, and none of them."""
    for number, pixels in enumerate(read_idx(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")):
        yield f"{number}.png", _png(Image.fromarray(pixels))


def _photos() -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(DATA / "cifar10-images.zip") as archive:
        names = [each for each in archive.namelist() if each.endswith(".jpg")]
        for number, name in enumerate(names[: FOREIGN["image"]]):
            with archive.open(name) as file, Image.open(file) as image:
                yield f"{number}.png", _png(image.resize((64, 64)))


def _recordings() -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(DATA / "spoken-digits.zip") as archive:
        names = [each for each in archive.namelist() if each.endswith(".wav")]
        for number, name in enumerate(names[: FOREIGN["audio"]]):
            yield f"{number}.wav", archive.read(name)


def _pages() -> Iterator[tuple[str, bytes]]:
    whole = (DATA / "tinyshakespeare.txt").read_text("utf-8")
    for number in range(FOREIGN["text"]):
        yield f"{number}.txt", whole[number * PAGE : (number + 1) * PAGE].encode()


def _png(image: Image.Image) -> bytes:
    target = BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


STRANGERS = {"digits": _digits, "photos": _photos, "voice": _recordings, "prose": _pages}
