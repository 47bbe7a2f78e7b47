"""Images from captions of MNIST, evaluated by a classifier independent of the family."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.results.captioned import NAMES, thickness, worded, write_captioned_mnist
from tests.results.classifier import judge, train_judge
from tests.results.machine import DATA, PICTURES, Machine, Result

ADJECTIVES = ([], ["thin"], ["bold"], ["slanted"], ["upright"])
CAPTION = 200  # pixels of the sheet


def text2image_on_mnist(machine: Machine) -> list[Result]:
    """600 seconds on 60,000 captioned digits; 1,000 pictures from prompts of ten digits."""
    write_captioned_mnist(DATA / "mnist", machine.folder / "captioned.zip", count=60_000)
    machine.run("dataset", "add", "captioned", machine.folder / "captioned.zip")
    budget = ["--max-seconds", "600", "--seed", "1"]
    words = ["--dataset", "captioned", "--name", "painter", *budget, "--wait"]
    machine.run("enqueue", "train", "text2image", *words)
    (machine.folder / "prompts.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in prompts())
    )
    words = ["--count", "1000", "--seed", "7", "--prompts", machine.folder / "prompts.jsonl"]
    job = machine.run("enqueue", "generate", "painter", *words, "--wait")
    machine.run("artifact", "verify", job)
    machine.run("artifact", "download", job, "-o", machine.folder / "painted")
    images, records = painted(machine.folder / "painted")
    network, accuracy = train_judge(DATA / "mnist")
    seen = judge(network, images).argmax(1).numpy()
    asked = np.array([int(record["custom_id"]) for record in records])
    agreement = float((seen == asked).mean())
    texts = [record["prompt"] for record in records]
    save_sheet(images, texts, PICTURES / "text2image.png")
    bold, thin = (
        float(thickness(images[[word in text for text in texts]]).mean())
        for word in ("bold", "thin")
    )
    metrics = machine.version("painter")["metrics"]
    case = "text2image, captioned MNIST, 600 s, 1,000 samples"
    return [
        Result(case, f"the judge's accuracy {accuracy:.4f}", ">= 0.98", accuracy >= 0.98),
        Result(
            case,
            f"agreement with the prompt {agreement:.3f}",
            ">= 0.9",
            len(images) == 1000 and agreement >= 0.9,
        ),
        Result(
            case,
            f"strokes asked to be bold {bold:.2f} pixels, thin {thin:.2f}",
            "bold 1.2 times thin",
            bold >= 1.2 * thin,
        ),
        Result(
            case,
            f"{metrics['distortion']:.1f} nats an image by the codec and {metrics['rate']:.1f} "
            f"by the prior, {metrics['samples_per_second']:.0f} samples a second",
            "(none)",
            kept=True,
        ),
    ]


def prompts() -> list[dict[str, str]]:
    """A hundred, ten of each digit in several wordings; the digit is the `custom_id`."""
    return [
        {"prompt": worded(noun, adjectives, (digit + place) % 4), "custom_id": str(digit)}
        for digit, name in enumerate(NAMES)
        for place, (noun, adjectives) in enumerate(
            (noun, adjectives) for adjectives in ADJECTIVES for noun in (name, str(digit))
        )
    ]


def painted(folder: Path) -> tuple[np.ndarray, list[dict]]:
    """The downloaded images (N, 28, 28) and records, in order."""
    paths = sorted(path for path in folder.rglob("*.png") if path.stem.isdigit())
    records = [json.loads(path.with_suffix(".json").read_text()) for path in paths]
    return np.stack([np.asarray(Image.open(path).convert("L")) for path in paths]), records


def save_sheet(images: np.ndarray, texts: list[str], path: Path) -> None:
    """Twenty prompts, two per digit, each with its ten images."""
    path.parent.mkdir(exist_ok=True)
    shown = list(dict.fromkeys(texts))
    shown = [text for digit in range(10) for text in shown[digit * 10 + digit % 5 :: 5][:2]]
    sheet = Image.new("L", (CAPTION + 10 * 56, len(shown) * 56), 255)
    draw = ImageDraw.Draw(sheet)
    for row, text in enumerate(shown):
        draw.text((8, row * 56 + 20), text, fill=0)
        these = images[[each == text for each in texts]][:10]
        strip = Image.fromarray(np.concatenate(list(these), 1))
        sheet.paste(strip.resize((strip.width * 2, 56)), (CAPTION, row * 56))
    sheet.save(path)
