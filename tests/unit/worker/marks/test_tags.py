"""Labels in the metadata: read by us, and by other people's readers."""

import io
import json
import struct

import mutagen.wave
import pyexiv2
import pytest
import soundfile
from PIL import Image

from db.errors import BadInput
from tests.unit.worker.marks.kit import NO_KEYS, marked, samples_of
from worker.marks import find_mark
from worker.media import find_medium
from worker.media.samples import xmp
from worker.media.samples.exif import COPYRIGHT, write_exif
from worker.media.samples.png_chunks import SIGNATURE, chunk, international_chunk
from worker.media.samples.png_tags import XMP_KEYWORD, read_picture_tags
from worker.media.samples.record import AI_GENERATED
from worker.media.samples.tags import Tag
from worker.media.samples.wav import MAX_ENTRIES, riff
from worker.media.samples.wav_tags import read_wav_tags

LICENCE = {
    "copyright": "© 2026 Ünser <Verlag> & Co",
    "creator": "Ünser Verlag",
    "licence": "CC-BY-4.0",
    "licence_url": "https://creativecommons.org/licenses/by/4.0/",
}
ALL = ("record", "iptc", "licence", "aigc")
SETTINGS = {"licence": LICENCE, "aigc": {"producer": "某公司"}}
MEDIA = ("image", "audio", "text")


def files(media):
    return marked(media, *ALL, **SETTINGS)[1]


def read(mark, data, media):
    return find_mark(mark).read(data, NO_KEYS, find_medium(media))


@pytest.mark.parametrize("media", MEDIA)
def test_every_label_reads_back_from_every_place(media):
    _, second = files(media)
    assert read("iptc", second, media).says == {"DigitalSourceType": AI_GENERATED, "missing": []}
    told = read("licence", second, media)
    assert (told.state, told.says["Copyright"]) == ("present", LICENCE["copyright"])
    assert told.says["missing"] == []
    label = read("aigc", second, media).says["fields"]
    assert (label["Label"], label["ContentProducer"]) == ("1", "某公司")
    assert read("record", second, media).says["index"] == 1


@pytest.mark.parametrize("media", MEDIA)
def test_no_two_samples_have_the_same_produce_id_and_a_sample_always_the_same(media):
    ids = [read("aigc", data, media).says["fields"]["ProduceID"] for data in files(media)]
    assert len(set(ids)) == 2
    assert files(media) == files(media)


@pytest.mark.parametrize("media", MEDIA)
def test_labels_change_no_pixel_sample_or_word(media):
    medium = find_medium(media)
    plain = medium.encode(samples_of(media), marking_shape(media))
    assert [medium.content(data) for data in plain] == [medium.content(d) for d in files(media)]


def marking_shape(media):
    from tests.unit.worker.marks.kit import SHAPES

    return SHAPES[media]


@pytest.mark.parametrize("media", MEDIA)
def test_a_sample_without_labels_says_so(media):
    _, [plain, _] = marked(media, "record")
    assert [read(mark, plain, media).state for mark in ("iptc", "licence", "aigc")] == [
        "absent"
    ] * 3


def test_exiv2_reads_the_labels_of_pictures():
    with pyexiv2.ImageData(files("image")[0]) as image:
        xmp, exif = image.read_xmp(), image.read_exif()
    assert xmp["Xmp.iptcExt.DigitalSourceType"] == AI_GENERATED
    assert xmp["Xmp.dc.rights"] == {'lang="x-default"': LICENCE["copyright"]}
    assert xmp["Xmp.dc.creator"] == [LICENCE["creator"]]
    assert xmp["Xmp.xmpRights.WebStatement"] == LICENCE["licence_url"]
    assert exif["Exif.Image.Copyright"] == LICENCE["copyright"]
    comment = exif["Exif.Photo.UserComment"].removeprefix("charset=Ascii ")
    assert json.loads(comment)["Label"] == "1"


def test_pillow_reads_the_labels_of_pictures():
    with Image.open(io.BytesIO(files("image")[0])) as image:
        image.load()
        assert json.loads(image.info["AIGC"])["Label"] == "1"
        assert b"trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"].encode()


def test_mutagen_and_soundfile_read_the_labels_of_sounds():
    [first, _] = files("audio")
    found = mutagen.wave.WAVE(io.BytesIO(first))
    assert json.loads(found.tags["TXXX:AIGC"].text[0])["ContentProducer"] == "某公司"
    with soundfile.SoundFile(io.BytesIO(first)) as sound:
        assert sound.frames == 800
        assert sound.copy_metadata()["copyright"].startswith("© 2026")


def test_a_label_of_texts_is_an_object_of_their_line():
    line = json.loads(files("text")[0])
    assert line["AIGC"]["Label"] == "1"
    assert line["DigitalSourceType"] == AI_GENERATED


def test_labels_are_found_in_other_formats():
    with Image.open(io.BytesIO(files("image")[0])) as image:
        xmp = image.info["XML:com.adobe.xmp"].encode()
        for form in ("JPEG", "WEBP"):
            copy = io.BytesIO()
            image.save(copy, form, xmp=xmp, exif=image.getexif())
            assert read("iptc", copy.getvalue(), "image").state == "present"
            told = read("aigc", copy.getvalue(), "image")
            assert (told.state, told.says["missing"]) == ("present", ["PNG text AIGC"])


@pytest.mark.parametrize("place", [b"TC260:AIGC>", b"ASCII\0\0\0", b"tEXtAIGC"])
def test_a_flipped_bit_in_any_copy_is_damage(place):
    data = bytearray(files("image")[0])
    data[data.index(place) + 15] ^= 1
    assert read("aigc", bytes(data), "image").state == "damaged"


def test_a_label_that_is_no_label_is_damage():
    line = json.loads(files("text")[0]) | {"AIGC": {"Lapel": "1"}}
    found = read("aigc", json.dumps(line).encode(), "text")
    assert (found.state, found.why) == ("damaged", "its label is no JSON object with `Label`")


def test_copies_that_differ_are_damage():
    [first, _] = files("audio")
    at = first.rindex(b'"Label":"1"')  # in one of two places
    changed = first[:at] + b'"Label":"0"' + first[at + 11 :]
    assert read("aigc", changed, "audio").why == "its AIGC differs from place to place"


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("mark", ["record", "iptc", "licence", "aigc", "visible_label"])
def test_files_of_anybody_do_not_upset_a_reading(media, mark):
    [whole, _] = files(media)
    broken = [b"", b"{", b"RIFF", whole[:40], whole[: len(whole) // 2], whole[8:], b"\x89PNG" * 9]
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>'
    body = b"WAVE_PMX" + struct.pack("<I", len(bomb)) + bomb
    broken.append(b"RIFF" + struct.pack("<I", len(body)) + body)
    for data in broken:
        assert read(mark, data, media).state in {"absent", "damaged"}


@pytest.mark.parametrize("hostile", ["comments", "frames", "packets", "PNG packets", "EXIF"])
def test_metadata_without_end_are_damage_and_read_no_further(hostile):
    frames = b"TXXX\0\0\0\2\0\0\3\0" * (MAX_ENTRIES + 1)
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    packet = xmp.packet([Tag("a", "b", "dc:rights")])
    chunks = {
        "comments": [(b"LIST", b"INFO" + b"abcd\0\0\0\0" * (MAX_ENTRIES + 1))],
        "frames": [(b"id3 ", b"ID3\4\0\0" + size + frames)],
        "packets": [(b"_PMX", packet)] * 2,
        "PNG packets": [international_chunk(XMP_KEYWORD, packet)] * 2,
        "EXIF": [chunk(b"eXIf", write_exif({COPYRIGHT: "a"}))] * 2,
    }[hostile]
    is_sound = hostile in {"comments", "frames", "packets"}
    data = riff(chunks) if is_sound else SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")
    with pytest.raises(BadInput, match=r"it has|has over"):
        (read_wav_tags if is_sound else read_picture_tags)(data)
