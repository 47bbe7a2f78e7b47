"""Near-duplicates and personal data planted in real data, and how many of them are found."""

import io
import random
import re
from dataclasses import dataclass

import numpy as np
import soundfile
from PIL import Image

DIRECTIONS = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]


@dataclass(frozen=True)
class Found:
    """How many of the planted pairs were found, and how many of the found pairs were planted."""

    planted: int
    hits: int
    strangers: int  # groups of items of which none was planted

    @property
    def recall(self) -> float:
        return self.hits / self.planted

    @property
    def precision(self) -> float:
        return self.hits / (self.hits + self.strangers)


def judged(groups: np.ndarray, origins: np.ndarray, originals: int) -> Found:
    """`groups` names each item's group; item `originals + i` was made from `origins[i]`."""
    hits = groups[origins] == groups[originals:]
    _, sizes = np.unique(groups[:originals], return_counts=True)
    return Found(len(origins), int(hits.sum()), int((sizes - 1).sum()))


def moved(image: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """An image (S, S, C) moved by a pixel; the edge is repeated."""
    wide = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    side = len(image)
    return wide[1 - step[0] : 1 - step[0] + side, 1 - step[1] : 1 - step[1] + side]


def encoded(image: np.ndarray, quality: int = 75) -> np.ndarray:
    """An image (S, S, C) after JPEG."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


def altered_image(image: np.ndarray, number: int) -> np.ndarray:
    """Moved by a pixel, encoded again, or both."""
    step = DIRECTIONS[number % len(DIRECTIONS)]
    kind = number // len(DIRECTIONS) % 3
    if kind == 0:
        return moved(image, step)
    return encoded(image if kind == 1 else moved(image, step), 75 if kind == 1 else 85)


def altered_text(text: str, chance: random.Random, words: list[str]) -> str:
    """One word replaced by another."""
    parts = re.findall(r"\S+|\s+", text)
    place = chance.choice([n for n, part in enumerate(parts) if not part.isspace()])
    parts[place] = chance.choice(words)
    return "".join(parts)


def altered_sound(sound: np.ndarray, number: int, rate: int) -> np.ndarray:
    """Half as loud, 10 ms shorter, with noise of 26 dB below it, or after Vorbis."""
    kind = number % 4
    values = sound.astype(np.float64)
    if kind == 0:
        values = values / 2
    elif kind == 1:
        values = values[rate // 100 :]
    elif kind == 2:
        noise = np.random.default_rng(number).normal(0, values.std() / 20, len(values))
        values = values + noise
    else:
        file = io.BytesIO()
        soundfile.write(file, sound, rate, format="OGG", subtype="VORBIS")
        file.seek(0)
        values = soundfile.read(file)[0] * 32767
    return np.clip(np.rint(values), -32768, 32767).astype(np.int16)


def personal_data(kind: str, chance: random.Random) -> str:
    """A piece of personal data as people write it."""
    return _MAKERS[kind](chance)


def _digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choice("0123456789") for _ in range(count))


def _email(chance: random.Random) -> str:
    name = chance.choice(["anna.meier", "j_smith", "li-wei", "o'brien", "bob+news", "x1"])
    host = chance.choice(["example.com", "mail.uni-bern.ch", "firma.co.uk", "posta.it"])
    return f"{name}{chance.choice(['@', '@', '@', ' [at] '])}{host}"


def _phone(chance: random.Random) -> str:
    d = chance.choice
    forms = [
        f"+41 {d(['44', '79'])} {_digits(chance, 3)} {_digits(chance, 2)} {_digits(chance, 2)}",
        f"+1-{d('2345')}{_digits(chance, 2)}-{d('2345')}{_digits(chance, 2)}-{_digits(chance, 4)}",
        f"({d('2345')}{_digits(chance, 2)}) {d('2345')}{_digits(chance, 2)}-{_digits(chance, 4)}",
        f"0{d('1234')}0 {_digits(chance, 4)} {_digits(chance, 4)}",
        f"0049 30 {_digits(chance, 6)}",
        f"0{d('4789')}{d('4789')} {_digits(chance, 3)} {_digits(chance, 2)} {_digits(chance, 2)}",
        f"0{d('4789')}{d('4789')}{_digits(chance, 7)}",
    ]
    return d(forms)


def _card(chance: random.Random) -> str:
    body = chance.choice(["4", "51", "37", "6011"])
    body += _digits(chance, (14 if body == "37" else 15) - len(body))
    total = sum(sum(divmod(int(c) * (2 - n % 2), 10)) for n, c in enumerate(reversed(body)))
    number = body + str(-total % 10)
    return chance.choice([number, " ".join(re.findall(r"\d{1,4}", number))])


def _iban(chance: random.Random) -> str:
    country, length = chance.choice([("DE", 18), ("CH", 17), ("FR", 23), ("NL", 14)])
    body = ("ABNA" + _digits(chance, 10)) if country == "NL" else _digits(chance, length)
    flat = "".join(str(int(each, 36)) for each in f"{body}{country}00")
    number = f"{country}{98 - int(flat) % 97:02d}{body}"
    return chance.choice([number, " ".join(re.findall(".{1,4}", number))])


def _ip(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return ".".join(str(chance.randrange(1, 255)) for _ in range(4))
    words = [f"{chance.randrange(65536):x}" for _ in range(8)]
    return chance.choice([":".join(words), ":".join(words[:3]) + "::" + words[3]])


_MAKERS = {"e-mail": _email, "phone": _phone, "card": _card, "IBAN": _iban, "IP": _ip}

# what looks like personal data and is none
LOOKALIKES = [
    "on 2024-01-02 at 10:30:45", "1,234,567 people", "the years 1998-2003", "pages 100 to 250",
    "ISBN 978-3-16-148410-0", "order 4111111111111112", "DE89370400440532013001", "room 3.14.15",
    "10.5 by 20.25 metres", "300.400.500.600", "a@b", "12:30", "3.141592653589793", "std::vector",
    "1/2/2003", "2001:2002", "#1234567", "version 2.10.3", "12 345 678 francs", "0.000123456",
]  # fmt: skip
