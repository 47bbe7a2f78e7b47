"""The watermark of sounds: in waves between 380 and 1,370 Hz, from 0.22 s."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from db.errors import BadInput
from worker.marks.base import NOT_APPLICABLE, Mark, Marking, Reading, Stage, unreadable
from worker.marks.watermarks import sounds
from worker.marks.watermarks.dither import Detection
from worker.marks.watermarks.readings import PURPOSE, Found, read_by_keys
from worker.media.samples.containers import SampleRecord
from worker.media.sources.codecs import decode

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium

LEVEL = 1e-6  # p-value up to which a sound counts as marked
NO_SOUND = "not a sound"


class SoundWatermark(Mark):
    """See `worker.marks.watermarks.sounds`."""

    name = "sound_watermark"
    stage = Stage.CONTENT
    purposes = (PURPOSE,)

    def misfit_of_job(self, marking: Marking) -> str:
        """See `Mark.misfit_of_job`."""
        return "" if marking.medium.watermark == self.name else NO_SOUND

    def misfit(self, sample: SampleRecord, marking: Marking) -> str:
        """Sounds that are short, soft or of a low rate."""
        if isinstance(sample.output, str) or sample.output.ndim != 1:
            return NO_SOUND
        return sounds.misfit(sample.output, marking.shape.sample_rate)

    def apply_content(
        self, samples: Sequence[SampleRecord], marking: Marking
    ) -> Sequence[SampleRecord]:
        """The sounds with the mark."""
        secret, rate = marking.keys.secret(PURPOSE), marking.shape.sample_rate
        return [
            replace(each, output=sounds.embed(np.asarray(each.output), rate, secret))
            for each in samples
        ]

    def expected(self, sample: SampleRecord, marking: Marking) -> Mapping[str, JsonValue]:
        """The mark of the job's own key."""
        return {"key": marking.keys.current(PURPOSE).id}

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """A sound in any format and rate; a whole one is tested before any part of a longer."""
        if medium.watermark != self.name:
            return Reading(self.name, NOT_APPLICABLE, why="a watermark of sounds")
        try:
            rate, sound = decode(BytesIO(data))
        except BadInput as error:
            return unreadable(self.name, error)
        tests = (
            lambda secret: _found(sounds.detect(sound / 32768, rate, secret)),
            lambda secret: _found(sounds.detect_cut(sound / 32768, rate, secret)),
        )
        return read_by_keys(self.name, keys, tests, level=LEVEL)


def _found(test: Detection) -> Found:
    return test.p_value, {"z": round(test.z, 2), "coefficients": test.coefficients}


MARK = SoundWatermark()
