"""What marks survive: for each medium and profile, 200 samples through the queue, then changed.

Each model is a case of its own (`make results ONLY=marks-voice`; ONLY=marks for all) and writes its
rows to `results/marks/`; one that was run by this version is not run again. `results/marks.md` has
the table of all that were.
"""

import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from tests.results.classifier import read_idx
from tests.results.copies import CHANGES
from tests.results.machine import DATA, PICTURES, Machine, Result
from tests.results.marks_table import STRANGERS, WHOLE, Document, Row, row_of, table
from worker.code_version import code_version

COUNT = 200
FOREIGN = {"image": 10_000, "audio": 1000, "text": 1000}
PROFILES = ("none", "eu-art50", "cn-gb45438")
MODELS = {  # short trainings: what samples show does not matter here
    "digits": ("image", "gan", "mnist", ["--max-steps", "300"]),
    "photos": ("image", "gan", "photos", ["--max-steps", "60"]),
    "voice": ("audio", "wavenet", "spoken", ["--max-steps", "40"]),
    "prose": ("text", "gpt", "shakespeare", ["--max-steps", "200"]),
}
DATASETS = {
    "mnist": ("mnist",),
    "photos": ("cifar10-images.zip", "--size", "64"),
    "spoken": ("spoken-digits.zip",),
    "shakespeare": ("tinyshakespeare.txt",),
}
SETTINGS = {"prose": ["--set", "max_tokens=400"], "voice": ["--set", "seconds=0.5"]}
SUFFIX = {"image": ".png", "audio": ".wav", "text": ".json"}
AT_ONCE = 250  # files of a command, whose line has a longest length
PAGE = 1000  # characters of a text that no model wrote
FOLDER = PICTURES / "marks"


def marks_of(name: str, machine: Machine) -> list[Result]:
    """Mark, change and verify samples of a model; count files that are taken for ours."""
    rows = _known(name) or _measured(name, machine)
    found = {each: known for each in MODELS if (known := _known(each))}
    Path(PICTURES, "marks.md").write_text(table(found, code_version()), "utf-8")
    return [*map(_result, rows)]


CASES = {f"marks-{name}": partial(marks_of, name) for name in MODELS}


def _measured(name: str, machine: Machine) -> list[Row]:
    _prepare(machine, name)
    rows = [row for profile in PROFILES for row in _of_job(machine, name, profile)]
    rows.append(_strangers(machine, name))
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {"version": code_version(), "rows": [vars(row) for row in rows]}
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1), "utf-8")
    return rows


def _known(name: str) -> list[Row]:
    """What this version has measured; nothing if it has not."""
    path = FOLDER / f"{name}.json"
    document: Document = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if document.get("version") != code_version():
        return []
    return [Row(**each) for each in document["rows"]]


def _result(row: Row) -> Result:
    case = f"{row.model}, {row.profile}, {row.files}"
    intact, ours = row.verdicts.get("intact", 0), row.ours
    if row.profile == STRANGERS:
        most = row.count // 1000
        figure = f"{ours} of {row.count:,} taken for ours"
        return Result(case, figure, f"<= {most}", ours <= most)
    figure = f"{intact} of {row.count} intact, {ours} ours, {row.right} by their number"
    if row.files == WHOLE:
        return Result(case, figure, f"{COUNT} intact", intact == row.right == COUNT)
    return Result(case, figure, "0 intact", intact == 0)


def _prepare(machine: Machine, name: str) -> None:
    for purpose in ("signing", "watermark"):
        machine.run("key", "create", purpose)
    _, family, dataset, steps = MODELS[name]
    source, *options = DATASETS[dataset]
    machine.run("dataset", "add", dataset, DATA / source, *options)
    words = ["--dataset", dataset, "--name", name, "--seed", "1", *steps]
    machine.run("enqueue", "train", family, *words, "--wait")


def _of_job(machine: Machine, name: str, profile: str) -> Iterator[Row]:
    seed = 7 + PROFILES.index(profile)  # or copies would be those of several jobs
    words = ["--count", str(COUNT), "--seed", str(seed), "--marks", profile]
    job = machine.run("enqueue", "generate", name, *words, *SETTINGS.get(name, []), "--wait")
    folder, medium = machine.folder / name / profile, MODELS[name][0]
    machine.run("artifact", "download", job, "-o", folder / "samples", "--as", "files")
    samples = sorted((folder / "samples").glob(f"*{SUFFIX[medium]}"))
    yield row_of((name, profile, WHOLE), job, samples, _verified(machine, samples))
    for way, change in CHANGES[medium].items():
        made = (
            (f"{each.stem}{suffix}", data)
            for each in samples
            for suffix, data in [change(each.read_bytes())]
        )
        copies = _written(made, folder / way.replace(" ", "-"))
        yield row_of((name, profile, way), job, copies, _verified(machine, copies))


def _written(files: Iterable[tuple[str, bytes]], folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    paths = []
    for name, data in files:
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    return paths


def _verified(machine: Machine, files: Sequence[Path]) -> list[Document]:
    """What `genmill provenance verify` says of files, by as many processes as there are cores."""

    def verify(some: Sequence[Path]) -> list[Document]:
        return json.loads(machine.try_to_run("provenance", "verify", *some, "--json")[1])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [each for found in pool.map(verify, _parts(files)) for each in found]


def _parts(files: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for first in range(0, len(files), AT_ONCE):
        yield files[first : first + AT_ONCE]


def _strangers(machine: Machine, name: str) -> Row:
    """Files of the same kind that no model made."""
    files = _written(FOREIGN_FILES[name](), machine.folder / STRANGERS / name)
    named = (name, STRANGERS, f"{len(files):,} that no model made")
    return row_of(named, "", files, _verified(machine, files))


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


FOREIGN_FILES = {"digits": _digits, "photos": _photos, "voice": _recordings, "prose": _pages}
