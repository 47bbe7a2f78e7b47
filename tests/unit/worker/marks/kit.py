"""Samples of each medium, and files of them with the marks of a profile."""

import numpy as np

from worker.data.dataset import Shape
from worker.keys.keyring import Keyring
from worker.mark_profile import Profile
from worker.marks.apply import Marker
from worker.marks.base import Marking
from worker.marks.profiles import complete
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import Origin

ORIGIN = Origin(
    *("gan", "digits:3", "ab" * 32, 7, {"micro_batch": 4}, 4),
    **{"torch": "2", "genmill": "1+g0", "marks": "test"},
)
SHAPES = {
    "image": Shape("image", ("cat",), size=64, channels=3),
    "audio": Shape("audio", sample_rate=8000),
    "text": Shape("text"),
}
NO_KEYS = Keyring(())


def outputs(media, count, size=64):
    random = np.random.default_rng(0)
    return [
        {
            "image": lambda: random.integers(0, 256, (size, size, 3), np.uint8),
            "audio": lambda: random.uniform(-0.5, 0.5, 800).astype(np.float32),
            "text": lambda: "春眠不觉晓, once upon a time",
        }[media]()
        for _ in range(count)
    ]


def samples_of(media, count=2, size=64):
    shared = ORIGIN.shared(label="cat")
    made = enumerate(outputs(media, count, size))
    return [SampleRecord(index, output, shared) for index, output in made]


def marking_of(media, *marks, **settings):
    asked = Profile(name="test", marks=marks, settings=settings)
    return Marking(complete(asked, find_medium(media)), NO_KEYS, SHAPES[media])


def marked(media, *marks, count=2, size=64, **settings):
    """The marker and its files."""
    marker = Marker(marking_of(media, *marks, **settings))
    return marker, marker.encode(samples_of(media, count, size), SHAPES[media])
