"""Run the real commands on real data and print the table of results: `make results`.

Each case trains through workers of `genmill up` in a home of its own, downloads what was generated,
and judges it by code that shares nothing with the families.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from tests.results.classifier import judge, train_judge

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
GENMILL = str(Path(sys.executable).with_name("genmill"))


@dataclass(frozen=True)
class Result:
    """One figure and the bound that it should keep."""

    case: str
    figure: str
    bound: str
    kept: bool


@dataclass(frozen=True)
class Machine:
    """A running `genmill up` in a home of its own."""

    folder: Path

    def run(self, *words: str | Path) -> str:
        """The stdout of a command; its failure ends the run."""
        done = subprocess.run(
            [GENMILL, *map(str, words)],
            env=os.environ | {"GENMILL_HOME": str(self.folder / "home")},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def version(self, model: str) -> dict:
        """The newest version of a model, as `model show --json` has it."""
        return json.loads(self.run("model", "show", model, "--json"))


@contextmanager
def machine() -> Iterator[Machine]:
    """Everything up, one worker with all cores; down at the end."""
    with tempfile.TemporaryDirectory() as name:
        it = Machine(Path(name))
        it.run("up", "--detach", "--workers", "1")
        try:
            yield it
        finally:
            it.run("down")


def gan_on_mnist(it: Machine) -> list[Result]:
    """A class-conditional GAN of 180 seconds, 5,000 digits, judged by an independent classifier."""
    it.run("dataset", "add", "mnist", DATA / "mnist")
    budget = ["--max-seconds", "180", "--seed", "1"]
    it.run("enqueue", "train", "gan", "--dataset", "mnist", "--name", "digits", *budget, "--wait")
    job = it.run("enqueue", "generate", "digits", "--count", "5000", "--seed", "7", "--wait")
    it.run("artifact", "verify", job)
    it.run("artifact", "download", job, "-o", it.folder / "digits")
    files = sorted((it.folder / "digits").rglob("*.png"))
    pictures = [path for path in files if path.stem.isdigit()]
    images = np.stack([np.asarray(Image.open(path).convert("L")) for path in pictures])
    network, accuracy = train_judge(DATA / "mnist")
    chances = judge(network, images)
    shares = np.bincount(chances.argmax(1).numpy(), minlength=10) / len(images) * 10
    confidence = float(chances.max(1).values.mean())
    labels = np.array(
        [json.loads(path.with_suffix(".json").read_text())["label"] for path in pictures]
    )
    agreement = float((chances.argmax(1).numpy() == labels.astype(int)).mean())
    save_sheet(images, labels.astype(int), Path("results") / "mnist-gan.png")
    case = "gan, MNIST, 180 s, 5,000 samples"
    return [
        Result(case, f"the judge's accuracy {accuracy:.4f}", ">= 0.98", accuracy >= 0.98),
        Result(
            case,
            f"classes at {shares.min():.2f} to {shares.max():.2f} of their share",
            "0.5 to 2",
            bool(len(images) == 5000 and shares.min() >= 0.5 and shares.max() <= 2),
        ),
        Result(case, f"mean confidence {confidence:.3f}", "> 0.9", confidence > 0.9),
        Result(case, f"agreement with the label {agreement:.3f}", "(none)", kept=True),
    ]


def gpt_on_shakespeare(it: Machine) -> list[Result]:
    """nanoGPT's CPU setting, judged on the whole validation part, the last tenth of the text."""
    it.run("dataset", "add", "shakespeare", DATA / "tinyshakespeare.txt", "--split", "90,10,0")
    sizes = ["layers=4", "heads=4", "width=128", "context=64", "batch_size=12"]
    settings = [word for size in sizes for word in ("--set", size)]
    words = ["--dataset", "shakespeare", "--name", "bard", "--max-steps", "2000", "--seed", "1"]
    it.run("enqueue", "train", "gpt", *words, *settings, "--wait")
    metrics = it.version("bard")["metrics"]
    loss = metrics["nats_per_character"]
    case = "gpt, tinyshakespeare, nanoGPT's CPU setting, 2,000 steps"
    figure = f"{loss:.3f} nats a character in {metrics['seconds']:.0f} s"
    return [Result(case, figure, "<= 1.75", loss <= 1.75)]


CASES: dict[str, Callable[[Machine], list[Result]]] = {
    "gan": gan_on_mnist,
    "gpt": gpt_on_shakespeare,
}


def save_sheet(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The first ten of each class, one row a class."""
    path.parent.mkdir(exist_ok=True)
    rows = [np.concatenate(list(images[labels == label][:10]), 1) for label in range(10)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


@click.command()
@click.option("--only", type=click.Choice(list(CASES)), help="one case")
def main(only: str | None) -> None:
    """Run the cases, print a Markdown table, exit 1 where a bound is missed."""
    if not DATA.exists():
        raise click.ClickException("the data sets of the maintainers are not beside the project")
    results = []
    with machine() as it:
        for name, case in CASES.items():
            if only in (None, name):
                results += case(it)
    click.echo("| case | figure | bound | |\n| --- | --- | --- | --- |")
    for row in results:
        click.echo(f"| {row.case} | {row.figure} | {row.bound} | {'ok' if row.kept else 'MISS'} |")
    sys.exit(0 if all(row.kept for row in results) else 1)


if __name__ == "__main__":
    main()
