"""The GAN on MNIST, compared with the original DCGAN recipe, and on CIFAR-10 at 64x64."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.results.classifier import judge, read_idx, train_judge
from tests.results.dcgan import sample_dcgan, train_dcgan
from tests.results.frechet import features, frechet_distance
from tests.results.machine import DATA, PICTURES, Machine, Result

SECONDS = {"mnist": 300, "cifar": 600}
WIDTHS = (64, 32)  # of the baseline: the usual one, and one as narrow as ours
COUNT = {"mnist": 10_000, "cifar": 1_000}


def gan_on_mnist(machine: Machine) -> list[Result]:
    """Five minutes and 10,000 digits, against DCGANs trained as long on as many threads."""
    images, labels = _train_and_make(machine, "mnist", DATA / "mnist")
    network, accuracy = train_judge(DATA / "mnist")
    save_sheet(images, labels, PICTURES / "mnist-gan.png")
    case = "gan, MNIST, 300 s, 10,000 samples"
    return [
        Result(case, f"the judge's accuracy {accuracy:.4f}", ">= 0.98", accuracy >= 0.98),
        *_distances(network, images, case),
        *_classes(network, images, labels, case),
    ]


def gan_on_cifar(machine: Machine) -> list[Result]:
    """Ten minutes at 64x64: a sheet to look at, and the diversity within classes."""
    images, labels = _train_and_make(machine, "cifar", DATA / "cifar10-images.zip", "--size", "64")
    save_sheet(images, labels, PICTURES / "cifar-gan.png")
    diversity = machine.version("cifar-gan")["metrics"]["diversity"]
    case = "gan, CIFAR-10, 64x64x3, 600 s, 1,000 samples"
    right = images.shape == (COUNT["cifar"], 64, 64, 3)
    grey = float((images.max(3).astype(float) - images.min(3)).mean())
    bound = "0.6 to 1.4"
    return [
        Result(case, f"samples of {images.shape}", "64x64x3", right),
        Result(case, f"diversity {diversity:.2f} of real", bound, 0.6 <= diversity <= 1.4),
        Result(case, f"channels {grey:.0f} of 255 apart", "> 10", grey > 10),
    ]


def save_sheet(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The first ten samples of each class, one row per class."""
    path.parent.mkdir(exist_ok=True)
    rows = [np.concatenate(list(images[labels == label][:10]), 1) for label in range(10)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


def _train_and_make(
    machine: Machine, name: str, source: Path, *options: str
) -> tuple[np.ndarray, np.ndarray]:
    """Train and generate by the real commands; samples uint8 (N, H, W[, 3]) and label numbers."""
    model = f"{name}-gan"
    machine.run("dataset", "add", name, source, *options)
    budget = ["--max-seconds", str(SECONDS[name]), "--seed", "1"]
    machine.run("enqueue", "train", "gan", "--dataset", name, "--name", model, *budget, "--wait")
    count = ["--count", str(COUNT[name]), "--seed", "7"]
    job = machine.run("enqueue", "generate", model, *count, "--wait")
    machine.run("artifact", "verify", job)
    machine.run("artifact", "download", job, "-o", machine.folder / model)
    found = (machine.folder / model).rglob("*.png")
    pictures = sorted(path for path in found if path.stem.isdigit())
    images = np.stack([np.asarray(Image.open(path)) for path in pictures])
    named = [json.loads(path.with_suffix(".json").read_text())["label"] for path in pictures]
    return images, np.unique(named, return_inverse=True)[1]


def _distances(network: nn.Sequential, images: np.ndarray, case: str) -> list[Result]:
    """Frechet distances to the test digits: of the GAN, of real digits and of the baselines."""
    torch.set_num_threads(os.cpu_count() or 1)  # as the one worker has
    train, test = (
        read_idx(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")
    )
    real = features(network, test)

    def distance(some: np.ndarray) -> float:
        return frechet_distance(features(network, some), real)

    ours, like = distance(images), distance(train[: COUNT["mnist"]])
    figure = f"Frechet distance to the test digits {ours:.2f}; real against real {like:.2f}"
    results = [Result(case, figure, "(none)", kept=True)]
    for width in WIDTHS:
        generator, steps = train_dcgan(train, seconds=SECONDS["mnist"], seed=1, width=width)
        theirs = distance(sample_dcgan(generator, COUNT["mnist"], seed=7))
        figure = f"{ours / theirs:.2f} of a DCGAN's {theirs:.1f} (width {width}, {steps} steps)"
        results.append(Result(case, figure, "<= 0.6", ours <= 0.6 * theirs))
    return results


def _classes(
    network: nn.Sequential, images: np.ndarray, labels: np.ndarray, case: str
) -> list[Result]:
    """The judge's classes of the digits, compared with the requested ones."""
    chances = judge(network, images)
    taken = chances.argmax(1).numpy()
    shares = np.bincount(taken, minlength=10) / len(images) * 10
    confidence = float(chances.max(1).values.mean())
    agreement = float((taken == labels).mean())
    return [
        Result(
            case,
            f"{len(images)} samples, classes at {shares.min():.2f} to {shares.max():.2f} of their "
            "share",
            "0.5 to 2",
            bool(len(images) == COUNT["mnist"] and shares.min() >= 0.5 and shares.max() <= 2),
        ),
        Result(case, f"mean confidence {confidence:.3f}", "> 0.9", confidence > 0.9),
        Result(case, f"agreement with the label {agreement:.3f}", "> 0.9", agreement > 0.9),
    ]
