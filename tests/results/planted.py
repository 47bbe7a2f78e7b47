"""Near-duplicates and personal data planted in real data: `make results ONLY=planted`.

States recall, precision and how many planted pairs lie in two splits. `python -m
tests.results.planted --items N` measures the memory and time that N tiny images take.
"""

import itertools
import json
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from tests.planted import (
    LOOKALIKES,
    Found,
    altered_image,
    altered_sound,
    altered_text,
    judged,
    personal_data,
)
from tests.results.machine import DATA, Machine, Result
from worker.cleaning.alike.groups import Likeness, find_groups
from worker.cleaning.alike.images import AlikeImages
from worker.cleaning.alike.sounds import AlikeSounds
from worker.cleaning.alike.texts import AlikeTexts
from worker.cleaning.personal import KINDS, mask
from worker.cleaning.recipe import Recipe
from worker.data.dataset import LocalDataset
from worker.ingest.ingest import ingest
from worker.media.samples.wav import write_wav

RECIPE = Recipe(near_duplicates="keep", split=(50, 25, 25))
IMAGES, TEXTS, SOUNDS, FINDS = 3000, 500, 400, 1000  # planted
LEAST_FOUND, LEAST_RIGHT, LEAST_MASKED = 0.95, 0.99, 0.99


def planted_in_mnist(folder: Path) -> tuple[Found, int]:
    """Digits moved by a pixel, encoded again, or both, among all of MNIST."""
    ingest(DATA / "mnist", folder / "all")
    images = np.array(LocalDataset(folder / "all").array("images")[:60_000])
    origins = np.random.default_rng(0).choice(len(images), IMAGES, replace=False)
    copies = np.stack([altered_image(images[origin], n) for n, origin in enumerate(origins)])
    _write_idx(folder / "planted-idx3-ubyte", np.concatenate([images, copies])[..., 0])
    ingest(folder / "planted-idx3-ubyte", folder / "out", RECIPE)
    found = LocalDataset(folder / "out")
    likeness = AlikeImages(found.array("images"))
    return _judge(likeness, found.array("split"), origins)


def planted_in_texts(folder: Path) -> tuple[Found, int]:
    """Speeches of Shakespeare in which a word is changed."""
    text = (DATA / "tinyshakespeare.txt").read_text("utf-8")
    speeches = list(dict.fromkeys(part for part in text.split("\n\n") if len(part) > 80))[:5000]
    chance, words = random.Random(0), text.split()
    origins = np.random.default_rng(0).choice(len(speeches), TEXTS, replace=False)
    copies = [altered_text(speeches[origin], chance, words) for origin in origins]
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": each}) + "\n" for each in speeches + copies))
    ingest(rows, folder / "out", RECIPE)
    lines = (folder / "out" / "documents.jsonl").read_text("utf-8").splitlines()
    split = np.array([json.loads(line)["split"] for line in lines])
    return _judge(AlikeTexts(rows, len(lines)), split, origins)


def planted_in_sounds(folder: Path) -> tuple[Found, int]:
    """Spoken digits that are softer, shorter, noisy or encoded by Vorbis."""
    ingest(DATA / "spoken-digits.zip", folder / "all")
    spoken = LocalDataset(folder / "all")
    ends, samples = spoken.array("offsets"), spoken.array("sounds")
    sounds = [np.array(samples[a:b]) for a, b in itertools.pairwise(ends)]
    origins = np.random.default_rng(0).choice(len(sounds), SOUNDS, replace=False)
    sounds += [altered_sound(sounds[origin], n, 8000) for n, origin in enumerate(origins)]
    (folder / "wav").mkdir()
    for n, sound in enumerate(sounds):
        (folder / "wav" / f"{n:06}.wav").write_bytes(write_wav(sound, 8000, {}))
    ingest(folder / "wav", folder / "out", RECIPE)
    found = LocalDataset(folder / "out")
    likeness = AlikeSounds(found.array("sounds"), found.array("offsets"))
    return _judge(likeness, found.array("split"), origins)


def personal_data_in_texts() -> list[Result]:
    """Recall of each kind, and precision among look-alikes."""
    text = (DATA / "tinyshakespeare.txt").read_text("utf-8")
    chance, lines = random.Random(0), [line for line in text.splitlines() if len(line) > 20]
    hits: Counter[str] = Counter()
    for kind in KINDS:
        for _ in range(FINDS):
            words = chance.choice(lines).split()
            place = chance.randrange(len(words))
            before, after = " ".join(words[:place]), " ".join(words[place:])
            whole = f"{before} {personal_data(kind, chance)} {after}"
            hits[kind] += mask(whole, Counter()) == f"{before} [{kind}] {after}"
    wrong: Counter[str] = Counter()
    for _ in range(FINDS):
        mask(f"{chance.choice(lines)} {chance.choice(LOOKALIKES)}.", wrong)
    mask(text, wrong)
    precision = hits.total() / (hits.total() + wrong.total())
    recalls = {kind: hits[kind] / FINDS for kind in KINDS}
    return [
        Result(
            f"personal data, {FINDS:,} of each kind planted in Shakespeare: recall",
            ", ".join(f"{kind} {recall:.3f}" for kind, recall in recalls.items()),
            f">= {LEAST_MASKED}",
            min(recalls.values()) >= LEAST_MASKED,
        ),
        Result(
            f"personal data: precision among {FINDS:,} look-alikes and all of Shakespeare",
            f"{precision:.3f}",
            f">= {LEAST_MASKED}",
            precision >= LEAST_MASKED,
        ),
    ]


def planted_everywhere(_: Machine | None = None) -> list[Result]:
    """Near-duplicates of every medium and personal data; none needs a machine."""
    cases = {
        "MNIST, moved by a pixel or encoded again": planted_in_mnist,
        "texts, a word changed": planted_in_texts,
        "sounds, softer, shorter, noisy or encoded again": planted_in_sounds,
    }
    return [row for name, case in cases.items() for row in _found_of(name, case)] + (
        personal_data_in_texts()
    )


def _found_of(name: str, case: Callable[[Path], tuple[Found, int]]) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        found, apart = case(Path(folder))
    about = f"near-duplicates planted in {name}: {found.planted:,}"
    figures = {"recall": found.recall, "precision": found.precision}
    bounds = {"recall": LEAST_FOUND, "precision": LEAST_RIGHT}
    return [
        *(
            Result(f"{about}: {each}", f"{value:.3f}", f">= {bounds[each]}", value >= bounds[each])
            for each, value in figures.items()
        ),
        Result(f"{about}: in two splits", str(apart), "0", apart == 0),
    ]


def memory_of(folder: Path, count: int) -> None:
    """Memory and time of adding `count` tiny images with all that the command does by default."""
    rng = np.random.default_rng(0)
    recipe = Recipe(blank="drop", duplicates="drop", near_duplicates="keep")
    for name, size in (("few-idx3-ubyte", 1000), ("many-idx3-ubyte", count)):
        _write_idx(folder / name, rng.integers(0, 255, (size, 8, 8), np.uint8))
    ingest(folder / "few-idx3-ubyte", folder / "few", recipe)  # imports what is needed
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    ingest(folder / "many-idx3-ubyte", folder / "many", recipe)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu_s = time.process_time() - start
    click.echo(
        f"{count:,} images: peak {peak / 1024:.0f} MiB (was {before / 1024:.0f}), CPU {cpu_s:.0f} s"
    )


def _judge(likeness: Likeness, split: np.ndarray, origins: np.ndarray) -> tuple[Found, int]:
    groups = find_groups(likeness, len(split)).names()
    first = len(split) - len(origins)
    found = groups[origins] == groups[first:]
    return judged(groups, origins, first), int((split[origins] != split[first:])[found].sum())


def _write_idx(path: Path, images: np.ndarray) -> None:
    path.write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, *images.shape) + images.tobytes())


@click.command()
@click.option("--items", type=int, help="measure memory with this many tiny images instead")
def main(items: int | None) -> None:
    """Print recall and precision; exit with 1 if a bound is missed."""
    with tempfile.TemporaryDirectory() as name:
        if items is not None:
            memory_of(Path(name), items)
            return
    if not DATA.exists():
        raise click.ClickException("the maintainers' data sets are not beside the project")
    rows = planted_everywhere()
    for row in rows:
        click.echo(f"{row.case}: {row.figure} ({row.bound}) {'ok' if row.kept else 'MISS'}")
    sys.exit(0 if all(row.kept for row in rows) else 1)


if __name__ == "__main__":
    main()
