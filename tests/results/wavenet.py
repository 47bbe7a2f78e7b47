"""WaveNet on spoken digits, judged on held-out takes and by a classifier of sounds."""

import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

from tests.results.machine import DATA, PICTURES, Machine, Result
from worker.media.samples.spectrogram import spectrogram, spectrogram_sheet
from worker.media.sources.wav_files import read_wav

BOUND = 5.1  # bits a sample
RECOGNISED = 0.5  # share of the sounds that are recognised as their digit; chance is 0.1
HELD_OUT = 5  # takes of each digit and speaker, the first
RATE = 8000
COLUMNS = 6
SIDE = 20  # of the small spectrograms that digits are recognised by


def wavenet_on_spoken_digits(machine: Machine) -> list[Result]:
    """Five minutes; each sample of the held-out takes is predicted once. Then 1,000 sounds."""
    archive = _with_held_out_takes(machine.folder / "spoken-digits.zip")
    machine.run("dataset", "add", "spoken", archive, "--kind", "audio", "--split", "100,0,0")
    words = ["--dataset", "spoken", "--name", "voice", "--max-seconds", "300", "--seed", "1"]
    machine.run("enqueue", "train", "wavenet", *words, "--wait")
    metrics = machine.version("voice")["metrics"]
    bits = metrics["bits_per_sample"]
    sounds, labels = _generated(machine, "1000")
    _save_sheet(sounds, labels)
    accuracy, agreement = _judged(archive, sounds, labels)
    lasting = np.median([len(sound) for sound in sounds]) / RATE
    heard = [sound for sound in sounds if np.abs(sound).max(initial=0) > 0]
    silent, different = len(sounds) - len(heard), len({sound.tobytes() for sound in heard})
    case = "wavenet, spoken digits, 300 s"
    recognised = f"{agreement:.0%} of sounds are recognised, {accuracy:.0%} of the held-out takes"
    figure = f"{bits:.3f} bits a sample in {metrics['seconds']:.0f} s"
    return [
        Result(case, figure, f"<= {BOUND}", bits <= BOUND),
        Result(
            case,
            f"{different} different sounds of {len(heard)}, and {silent} that are silence",
            "all different, 50 silent",
            len(sounds) == 1000 and different == len(heard) and silent <= 50,
        ),
        Result(case, f"{lasting:.2f} s is their median length, 0.42 s the data's", "(none)", True),
        Result(case, recognised, f">= {RECOGNISED:.0%} of sounds", agreement >= RECOGNISED),
    ]


def _with_held_out_takes(path: Path) -> Path:
    """The spoken digits with the first takes moved into a folder `validation`."""
    with (
        zipfile.ZipFile(DATA / "spoken-digits.zip") as given,
        zipfile.ZipFile(path, "w") as arranged,
    ):
        for name in sorted(name for name in given.namelist() if name.endswith(".wav")):
            take = int(Path(name).stem.split("_")[2])
            split = "validation" if take < HELD_OUT else "train"
            arranged.writestr(f"{split}/{Path(name).name}", given.read(name))
    return path


def _generated(machine: Machine, count: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Sounds in [-1, 1] as they were downloaded, and the digits asked for."""
    job = machine.run("enqueue", "generate", "voice", "--count", count, "--seed", "7", "--wait")
    machine.run("artifact", "verify", job)
    machine.run("artifact", "download", job, "-o", machine.folder / "sounds")
    sounds, labels = [], []
    for path in sorted((machine.folder / "sounds").glob("*.wav")):
        with path.open("rb") as file:
            sounds.append(read_wav(file)[1] / np.float32(32768))
        labels.append(int(json.loads(path.with_suffix(".json").read_text())["label"]))
    return sounds, np.array(labels)


def _save_sheet(sounds: list[np.ndarray], labels: np.ndarray) -> None:
    """The first sounds of each digit, one row per digit."""
    chosen = [place for digit in range(10) for place in np.flatnonzero(labels == digit)[:COLUMNS]]
    names = [str(digit) for digit in range(10)]
    PICTURES.mkdir(exist_ok=True)
    sheet = spectrogram_sheet(
        [sounds[place] for place in chosen], rate=RATE, columns=COLUMNS, names=names
    )
    sheet.save(PICTURES / "wavenet.png")


def _judged(archive: Path, sounds: list[np.ndarray], labels: np.ndarray) -> tuple[float, float]:
    """Accuracy of a classifier of real sounds on held-out takes and on generated sounds."""
    features: dict[str, list[np.ndarray]] = {"train": [], "validation": []}
    digits: dict[str, list[int]] = {"train": [], "validation": []}
    with zipfile.ZipFile(archive) as real:
        for name in real.namelist():
            split, file_name = name.split("/")
            with real.open(name) as file:
                sound = read_wav(file)[1] / np.float32(32768)
            features[split].append(_features(sound))
            digits[split].append(int(file_name[0]))
    judge = LogisticRegression(C=0.01, max_iter=2000).fit(features["train"], digits["train"])
    accuracy = judge.score(features["validation"], digits["validation"])
    return float(accuracy), float(judge.score([_features(sound) for sound in sounds], labels))


def _features(sound: np.ndarray) -> np.ndarray:
    """A small spectrogram of fixed length, standardised."""
    levels = np.maximum(spectrogram(sound.astype(np.float32), RATE), -60).astype(np.float32)
    small = Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small).ravel()
    return (values - values.mean()) / (values.std() + 1e-6)
