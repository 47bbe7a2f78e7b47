"""The VAE on binarised MNIST, and sheets of what it makes of digits it has never seen."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.results.classifier import read_idx
from tests.results.machine import DATA, PICTURES, Machine, Result

SECONDS = 180
COLUMNS = 10
# no labels, stochastic binarisation: the setting of published figures
PARAMS = ("conditional=false", "binarise=stochastic", "channels=16", "lr=0.003")
MODES = {
    "samples": ["--count", "1000"],
    "interpolations": ["--count", "100", "--set", "mode=interpolate", "--dataset", "mnist"],
    "reconstructions": ["--count", "50", "--set", "mode=reconstruct", "--dataset", "mnist"],
    "inpaintings": [
        *("--count", "50", "--set", "mode=inpaint", "--dataset", "mnist"),
        *("--set", "mask=[0, 14, 28, 28]"),
    ],
}


def vae_on_mnist(machine: Machine) -> list[Result]:
    """Three minutes; the bound on the whole validation split, whose pixels are drawn only once."""
    machine.run("dataset", "add", "mnist", DATA / "mnist")
    settings = [word for param in PARAMS for word in ("--set", param)]
    words = ["--dataset", "mnist", "--name", "codes", "--max-seconds", str(SECONDS), "--seed", "1"]
    machine.run("enqueue", "train", "vae", *words, *settings, "--wait")
    metrics = machine.version("codes")["metrics"]
    made = {name: _make(machine, name, asked) for name, asked in MODES.items()}
    _draw_sheets(made)
    loss, steps = metrics["loss"], int(metrics["steps"])
    case = f"vae, MNIST binarised at random, no labels, {SECONDS} s"
    changed = _changed_pixels(made["inpaintings"])
    return [
        Result(case, f"-ELBO {loss:.2f} nats ({steps} steps)", "<= 100", loss <= 100),
        Result(case, f"-IWAE of 10 codes {metrics['iwae']:.2f} nats", "(none)", kept=True),
        Result(case, f"{len(made['samples'])} samples", "1000", len(made["samples"]) == 1000),
        Result(case, f"{changed} known pixels changed by filling in", "0", changed == 0),
    ]


def _make(machine: Machine, name: str, asked: list[str]) -> np.ndarray:
    """What the model makes, in order, uint8 (N, 28, 28)."""
    job = machine.run("enqueue", "generate", "codes", "--seed", "7", *asked, "--wait")
    machine.run("artifact", "verify", job)
    machine.run("artifact", "download", job, "-o", machine.folder / name)
    pictures = sorted(
        path for path in (machine.folder / name).rglob("*.png") if path.stem.isdigit()
    )
    return np.stack([np.asarray(Image.open(path)) for path in pictures])


def _sources() -> np.ndarray:
    """The test digits; sample i of a mode is made from digit i."""
    return read_idx(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")


def _changed_pixels(filled: np.ndarray) -> int:
    """How many pixels outside the mask, in the upper half, differ from the source's."""
    return int((filled[:, :14] != _sources()[: len(filled), :14]).sum())


def _draw_sheets(made: dict[str, np.ndarray]) -> None:
    """One sheet per mode; each source digit has its sample below it."""
    for name, images in made.items():
        shown = images[: COLUMNS * COLUMNS]
        if name in ("reconstructions", "inpaintings"):
            given = _sources()[: len(shown)].reshape(-1, COLUMNS, 28, 28)
            shown = np.stack([given, shown.reshape(given.shape)], 1).reshape(-1, 28, 28)
        _save(shown, PICTURES / f"mnist-vae-{name}.png")


def _save(images: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [np.concatenate(list(row), 1) for row in images.reshape(-1, COLUMNS, 28, 28)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)
