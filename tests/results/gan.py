"""The GAN on MNIST, judged by a classifier that shares nothing with it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.results.classifier import judge, train_judge
from tests.results.machine import DATA, PICTURES, Machine, Result


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
    save_sheet(images, labels.astype(int), PICTURES / "mnist-gan.png")
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


def save_sheet(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The first ten of each class, one row a class."""
    path.parent.mkdir(exist_ok=True)
    rows = [np.concatenate(list(images[labels == label][:10]), 1) for label in range(10)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)
