"""With all marks in one file, signature last, other people's readers still find each of them."""

import json
from io import BytesIO

import c2pa
import mutagen.wave
import numpy as np
import pyexiv2
import pytest
import soundfile
from PIL import Image

from tests.keyrings import add_key, keyring_of, settings_in
from tests.unit.worker.marks.kit import SHAPES, samples_of
from worker.mark_profile import Profile
from worker.marks.apply import Marker
from worker.marks.base import Marking
from worker.marks.profiles import complete
from worker.media import find_medium
from worker.media.samples.record import AI_GENERATED

MARKS = ("record", "licence", "iptc", "aigc", "c2pa", "fingerprint")
LICENCE = {"licence": {"copyright": "© 2026 Example Ltd", "licence": "CC-BY-4.0"}}


@pytest.fixture
def ring(database, tmp_path):
    settings = settings_in(tmp_path / "home")
    add_key(database, settings, "signing", name="Example Ltd")
    return keyring_of(database, settings)


def file_of(media: str, ring) -> bytes:
    asked = Profile(name="all", marks=MARKS, settings=LICENCE)
    profile = complete(asked, find_medium(media)).model_copy(
        update={"keys": {"signing": ring.current("signing").id}}
    )
    marker = Marker(Marking(profile, ring, SHAPES[media]))
    return marker.encode(samples_of(media, 1), SHAPES[media])[0]


def signed_by(data: bytes, form: str, anchors: str, store: bytes | None = None) -> str:
    trust = {"trust": {"trust_anchors": anchors}, "verify": {"verify_trust": True}}
    with c2pa.Reader(form, BytesIO(data), store, context=c2pa.Context.from_dict(trust)) as reader:
        found = json.loads(reader.json())
    assert found["validation_state"] == "Trusted"
    return found["manifests"][found["active_manifest"]]["signature_info"]["issuer"]


def test_a_picture(ring):
    data = file_of("image", ring)
    assert signed_by(data, "image/png", ring.anchors) == "Example Ltd"
    with pyexiv2.ImageData(data) as image:
        xmp, exif = image.read_xmp(), image.read_exif()
    assert xmp["Xmp.iptcExt.DigitalSourceType"] == AI_GENERATED
    assert exif["Exif.Image.Copyright"] == "© 2026 Example Ltd"
    assert "Label" in exif["Exif.Photo.UserComment"]
    place = data.index(b"eXIf") + 8  # exiftool skips a directory that begins where a C2PA box does
    assert int.from_bytes(data[place : place + 4], "little") == 10
    with Image.open(BytesIO(data)) as image:
        image.verify()
    with Image.open(BytesIO(data)) as image:
        assert json.loads(image.info["genmill"])["model"] == "digits:3"
        assert json.loads(image.info["AIGC"])["Label"] == "1"
        [sample] = samples_of("image", 1)
        assert (np.asarray(image) == sample.output).all()


def test_a_sound(ring):
    data = file_of("audio", ring)
    assert signed_by(data, "audio/wav", ring.anchors) == "Example Ltd"
    tags = mutagen.wave.WAVE(BytesIO(data)).tags
    assert json.loads(tags["TXXX:AIGC"].text[0])["Label"] == "1"
    with soundfile.SoundFile(BytesIO(data)) as sound:
        assert sound.copyright == "© 2026 Example Ltd"
        assert json.loads(sound.comment)["model"] == "digits:3"
        assert sound.frames == 800


def test_a_text_keeps_to_its_line(ring):
    data = file_of("text", ring)
    line = json.loads(data)
    assert line["text"] == samples_of("text", 1)[0].output
    assert line["digital_source_type"] == AI_GENERATED
    files = find_medium("text").downloads["files"].contents(data, data)
    assert signed_by(files[".txt"], "text/plain", ring.anchors, files[".c2pa"]) == "Example Ltd"
