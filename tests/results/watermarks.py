"""The figures of the watermarks in docs/marks.md: `python -m tests.results.watermarks`.

False positives are of pictures, sounds and texts that people made, true positives of marked ones
after what happens to files on their way. Everything is drawn with seed 1; the secrets are two
fixed texts. A text model is trained first, which takes most of the time.
"""

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from time import process_time

import click
import numpy as np
import soundfile
import soxr
import torch
from PIL import Image

from tests.families.kit import Recorder, run
from tests.results.classifier import read_idx
from tests.results.machine import DATA
from worker.data.dataset import LocalDataset
from worker.engine.generate import Generation, generate
from worker.engine.train import Training
from worker.engine.weights import load
from worker.families.gpt import FAMILY
from worker.marks import picture_watermark, sound_watermark, text_watermark
from worker.marks.watermarks import pictures, sounds, tokens
from worker.networks.network import Network

SECRET, OTHER = b"the secret of a tenant", b"the secret of another"
SIDE = 64
Row = tuple[str, str, str]


def cifar(count: int) -> np.ndarray:
    """CIFAR-10 pictures at 64 pixels."""
    with zipfile.ZipFile(DATA / "cifar10-images.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".jpg", ".jpeg")))
        chosen = np.random.default_rng(1).permutation(len(names))[:count]
        images = [Image.open(BytesIO(archive.read(names[each]))) for each in chosen]
        return np.stack([np.asarray(each.convert("RGB").resize((SIDE, SIDE))) for each in images])


def mnist(count: int) -> np.ndarray:
    """Digits at 64 pixels."""
    digits = read_idx(DATA / "mnist" / "train-images-idx3-ubyte.gz")
    chosen = np.random.default_rng(1).permutation(len(digits))[:count]
    images = [Image.fromarray(digits[each].reshape(28, 28)) for each in chosen]
    return np.stack([np.asarray(each.resize((SIDE, SIDE))) for each in images])[..., None]


def as_jpeg(image: Image.Image) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file)


def cropped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A tenth of each side off, anywhere."""
    left = image.width - image.width // 10
    x, y = random.integers(0, image.width - left + 1, 2).tolist()
    return image.crop((x, y, x + left, y + left))


def noisy(image: Image.Image, random: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image) + random.normal(0, 5, np.asarray(image).shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


Change = Callable[[Image.Image, np.random.Generator], Image.Image]
CHANGES: dict[str, Change] = {
    "as stored": lambda image, _: image,
    "JPEG 75": lambda image, _: as_jpeg(image),
    "resized to half": lambda image, _: image.resize((image.width // 2, image.height // 2)),
    "resized to double": lambda image, _: image.resize((2 * image.width, 2 * image.height)),
    "cropped by 10%": cropped,
    "cropped by 10%, then JPEG 75": lambda image, random: as_jpeg(cropped(image, random)),
    "noise of 5 grey levels": noisy,
}


def of_picture(image: Image.Image, secret: bytes = SECRET) -> float:
    """The p-value of both tests."""
    brightness = pictures.luminance(np.asarray(image.convert("RGB"), np.float64))
    whole = pictures.detect(brightness, secret).p_value
    if 2 * whole <= picture_watermark.LEVEL:
        return 2 * whole
    return min(1.0, 2 * min(whole, pictures.detect_cropped(brightness, secret).p_value))


def picture_rows(count: int) -> Iterator[Row]:
    level = picture_watermark.LEVEL
    for name, read in (("CIFAR-10", cifar), ("MNIST", mnist)):
        plain = read(count)
        found = np.array([of_picture(Image.fromarray(each.squeeze())) for each in plain])
        yield f"{name}, unmarked", f"{count:,}", _false(found, level)
        some = plain[:200]
        began = process_time()
        marked = pictures.embed(some, SECRET)
        each_ms = (process_time() - began) / len(some) * 1000
        error = np.square(marked.astype(float) - some).mean((1, 2, 3))
        psnr = 10 * np.log10(255**2 / error)
        figure = f"PSNR {np.median(psnr):.1f} dB, lowest {psnr.min():.1f}; {each_ms:.2f} ms each"
        yield f"{name}, marked", "200", figure
        images = [Image.fromarray(each.squeeze()) for each in marked]
        for change, apply in CHANGES.items():
            random = np.random.default_rng(1)
            found = np.array([of_picture(apply(each, random)) for each in images])
            yield f"{name}, {change}", "200", _true(found, level)
        other = np.array([of_picture(each, OTHER) for each in images])
        yield f"{name}, marked by another key", "200", _false(other, level)


def spoken() -> list[np.ndarray]:
    with zipfile.ZipFile(DATA / "spoken-digits.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
        return [soundfile.read(BytesIO(archive.read(name)), dtype="float32")[0] for name in names]


def written(sound: np.ndarray, rate: int = sounds.RATE, subtype: str = "PCM_16") -> bytes:
    file = BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def of_sound(data: bytes, secret: bytes = SECRET) -> float:
    """The p-value of both tests."""
    sound, rate = soundfile.read(BytesIO(data))
    whole = sounds.detect(sound, rate, secret).p_value
    if 2 * whole <= sound_watermark.LEVEL:
        return 2 * whole
    return min(1.0, 2 * min(whole, sounds.detect_cut(sound, rate, secret).p_value))


def flipped(sound: np.ndarray, random: np.random.Generator) -> bytes:
    """One byte of the samples with all its bits turned."""
    data = bytearray(written(sound))
    data[int(random.integers(44, len(data)))] ^= 0xFF
    return bytes(data)


def cut(sound: np.ndarray, random: np.random.Generator) -> bytes:
    """A tenth off: the beginning, the end or between."""
    first = int(random.integers(0, len(sound) - len(sound) // 10 + 1))
    where = [0, first, len(sound) - len(sound) // 10][int(random.integers(3))]
    return written(np.delete(sound, np.s_[where : where + len(sound) // 10]))


SOUND_CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], bytes]] = {
    "as stored": lambda sound, _: written(sound),
    "one byte flipped": flipped,
    "8 bits": lambda sound, _: written(sound, subtype="PCM_U8"),
    "at half the rate": lambda sound, _: written(soxr.resample(sound, 2, 1), sounds.RATE // 2),
    "cut by 10%": cut,
}


def sound_rows() -> Iterator[Row]:
    plain, level = spoken(), sound_watermark.LEVEL
    found = np.array([of_sound(written(each)) for each in plain])
    yield "spoken digits, unmarked", f"{len(plain):,}", _false(found, level)
    fitting = [each for each in plain if not sounds.misfit(each, sounds.RATE)]
    yield "spoken digits that fit", f"{len(plain):,}", f"{len(fitting):,}"
    some = [fitting[each] for each in np.random.default_rng(1).permutation(len(fitting))[:200]]
    began = process_time()
    marked = [sounds.embed(each, sounds.RATE, SECRET) for each in some]
    each_ms = (process_time() - began) / len(some) * 1000
    ratios = [
        10 * np.log10(np.square(one).mean() / np.square(one - other).mean())
        for one, other in zip(some, marked, strict=True)
    ]
    figure = f"SNR {np.median(ratios):.1f} dB, lowest {min(ratios):.1f}; {each_ms:.2f} ms each"
    yield "spoken digits, marked", "200", figure
    for change, apply in SOUND_CHANGES.items():
        random = np.random.default_rng(1)
        found = np.array([of_sound(apply(each, random)) for each in marked])
        yield f"spoken digits, {change}", "200", _true(found, level)
    other = np.array([of_sound(written(each), OTHER) for each in marked])
    yield "spoken digits, marked by another key", "200", _false(other, level)


def bard(folder: Path, steps: int) -> Path:
    """The folder of a `gpt` that has learnt tinyshakespeare for some steps."""
    text = (DATA / "tinyshakespeare.txt").read_text("utf-8")
    cut_at = len(text) * 9 // 10
    rows = [{"split": 0, "text": text[:cut_at]}, {"split": 1, "text": text[cut_at:]}]
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "documents.jsonl").write_text(lines, "utf-8")
    (folder / "manifest.json").write_text('{"kind": "text"}', "utf-8")
    target = folder.with_name("version")
    target.mkdir()
    training = Training(
        FAMILY, FAMILY.params(), LocalDataset(folder), target, max_steps=steps, seed=1
    )
    trained = run(training)
    click.echo(f"{trained.metrics['nats_per_character']:.3f} nats a character", err=True)
    return trained.folder


def shuffled(text: str, random: np.random.Generator) -> str:
    lines = text.split("\n")
    random.shuffle(lines)
    return "\n".join(lines)


def replaced(text: str, random: np.random.Generator) -> str:
    """One word in ten is another word of the text."""
    words = text.split(" ")
    for place in np.flatnonzero(random.random(len(words)) < 0.1):
        words[place] = words[int(random.integers(len(words)))]
    return " ".join(words)


TEXT_CHANGES: dict[str, Callable[[str, np.random.Generator], str]] = {
    "as stored": lambda text, _: text,
    "its middle half": lambda text, _: text[len(text) // 4 : len(text) * 3 // 4],
    "lines in another order": shuffled,
    "one word in ten replaced": replaced,
}
SETTINGS = (  # others are the family's own: temperature 0.8, top_p 0.9
    {"max_tokens": 400},
    {"max_tokens": 1000},
    {"max_tokens": 400, "temperature": 1.0, "top_p": 1.0},
)
CHARACTERS = 400  # of a text that people wrote


def text_rows(count: int, steps: int) -> Iterator[Row]:
    level = text_watermark.LEVEL
    with tempfile.TemporaryDirectory() as name:
        folder = bard(Path(name) / "data", steps)
        tokenize = text_watermark.tokenizer_in(folder)
        text = (DATA / "tinyshakespeare.txt").read_text("utf-8")
        size = len(text) // count
        pieces = [tokenize(text[at : at + CHARACTERS]) for at in range(0, size * count, size)]
        for variant, knowing in ((0, "by the record"), (None, "without the record")):
            found = [tokens.detect(each, SECRET, variant) for each in pieces]
            values = np.array([each.p_value for each in found])
            scored = np.median([each.scored for each in found])
            what = f"{_false(values, level)}; {scored:.0f} tokens scored"
            yield f"Shakespeare, {CHARACTERS} characters, {knowing}", f"{count:,}", what
        network = load(folder, device=torch.device("cpu"))[1]
        for settings in SETTINGS:
            yield from _generated(network, tokenize, settings, level)


def _generated(
    network: Network, tokenize: text_watermark.Tokenize, settings: dict[str, float], level: float
) -> Iterator[Row]:
    sampling = FAMILY.sampling(micro_batch=64, **settings)
    shown = ", ".join(f"{key} {value:g}" for key, value in settings.items())
    plain, marked = (
        Generation(network, sampling, 1, 0, 200, watermark_key=key) for key in (None, SECRET)
    )
    plain_s = 0.0
    if sampling.max_tokens < 1000:
        plain_s, texts = _timed(plain)
        found = [tokens.detect(tokenize(each), SECRET).p_value for each in texts]
        yield f"{shown}: unmarked", "200", _false(np.array(found), level)
    marked_s, made = _timed(marked)
    if plain_s:
        yield f"{shown}: CPU time of making", "200", f"{marked_s / plain_s - 1:+.0%}"
    unknown = np.array([tokens.detect(tokenize(each), SECRET).p_value for each in made])
    yield f"{shown}: as stored, without the record", "200", _true(unknown, level)
    for change, apply in TEXT_CHANGES.items():
        random = np.random.default_rng(1)
        found = [
            tokens.detect(tokenize(apply(text, random)), SECRET, tokens.variant_of(1, index))
            for index, text in enumerate(made)
        ]
        scored = np.median([each.scored for each in found])
        values = np.array([each.p_value for each in found])
        yield f"{shown}: {change}", "200", f"{_true(values, level)}; {scored:.0f} scored"


def _timed(asked: Generation) -> tuple[float, list[str]]:
    """The CPU time of making samples, and what they are."""
    began = process_time()
    made = [str(each.output) for each in generate(asked, Recorder())]
    return process_time() - began, made


def _false(found: np.ndarray, level: float) -> str:
    return f"{int((found <= level).sum())} at p <= {level:g}; lowest p {found.min():.2g}"


def _true(found: np.ndarray, level: float) -> str:
    return f"{(found <= level).mean():.1%}; median p {np.median(found):.2g}"


@click.command()
@click.option("--pictures", "count", default=5000, help="unmarked pictures of each data set")
@click.option("--texts", default=1000, help="unmarked texts")
@click.option("--steps", default=700, help="of training the text model")
@click.option("--only", type=click.Choice(["pictures", "sounds", "texts"]))
def main(count: int, texts: int, steps: int, only: str | None) -> None:
    """Print the figures as a Markdown table."""
    parts = {
        "pictures": lambda: picture_rows(count),
        "sounds": sound_rows,
        "texts": lambda: text_rows(texts, steps),
    }
    click.echo("| what | number | figure |\n| --- | --- | --- |")
    for name, rows in parts.items():
        if only in {None, name}:
            for row in rows():
                click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
