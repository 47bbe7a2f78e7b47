"""What every medium does, whichever it is."""

import hashlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from db.errors import BadInput, NonFinite, Refused
from worker.data.dataset import Shape
from worker.media import MEDIA, all_media, find_medium, medium_of, read_record
from worker.media.base import CombinedFiles, Medium, SampleFiles
from worker.media.samples.containers import Output, SampleRecord
from worker.media.samples.record import Origin, SharedRecord, to_json

RECORD = Origin("f", "m:1", "ab" * 32, 5, {"micro_batch": 1}, 1).record(3, label="猫")
OUTPUTS: dict[str, Output] = {
    "image": np.full((8, 6, 3), 7, np.uint8),
    "audio": np.linspace(-1, 1, 500, dtype=np.float32),
    "text": "60:4 words",
}


@pytest.fixture(params=MEDIA)
def medium(request) -> Medium:
    return find_medium(request.param)


@pytest.fixture
def shape(medium) -> Shape:
    return Shape(medium.name, sample_rate=8000)


def encode(medium, output, shape, record=RECORD):
    [data] = medium.encode([SampleRecord(record["index"], output, SharedRecord(record))], shape)
    return data


def test_a_sample_gives_its_record_back(medium, shape):
    sample = encode(medium, OUTPUTS[medium.name], shape)
    assert sample.startswith(medium.signature)
    found = medium.read_record(sample)
    assert found.items() >= RECORD.items()
    assert read_record(sample) == found


def test_the_content_of_a_sample_does_not_depend_on_its_record(medium, shape):
    output = OUTPUTS[medium.name]
    one, other = (encode(medium, output, shape, RECORD | {"genmill": n}) for n in ("1", "2.0"))
    assert one != other
    assert medium.content(one) == medium.content(other)


def test_the_output_of_another_medium_is_refused(medium, shape):
    for name, output in OUTPUTS.items():
        if name != medium.name:
            with pytest.raises((NonFinite, Refused), match="sample 3 is"):
                encode(medium, output, shape)


def test_a_sample_is_downloaded_as_files_with_its_bytes_among_them(medium, shape):
    sample = encode(medium, OUTPUTS[medium.name], shape)
    form = medium.download("files")
    assert isinstance(form, SampleFiles)
    assert form.contents(sample, to_json(RECORD).encode())[medium.suffix] == sample


def test_other_downloads_are_refused_with_those_there_are(medium):
    assert medium.download(None) is next(iter(medium.downloads.values()))
    assert medium.download("jsonl") is CombinedFiles.RECORDS
    with pytest.raises(Refused, match=r"cannot be downloaded as paper; use .*--as files"):
        medium.download("paper")


def test_a_page_shows_samples(medium, shape, tmp_path):
    path = tmp_path / f"page{medium.page.suffix}"
    medium.write_page([OUTPUTS[medium.name]] * 3, shape, path)
    assert path.stat().st_size


def test_options_of_other_media_are_refused(medium):
    with pytest.raises(
        Refused, match=f"colour red: x is {medium.name} data, which has no colour; leave colour out"
    ):
        medium.check_options("x", {"colour": "red"})


def test_no_two_media_share_a_source_format_or_a_sample():
    media = list(all_media())
    names = [source.name for medium in media for source in medium.sources]
    assert len(set(names)) == len(names)
    for what in ("name", "precedence", "signature", "suffix", "pipeline_tag"):
        assert len({getattr(medium, what) for medium in media}) == len(media)


def test_bytes_of_no_medium_hold_no_record():
    for data in (b"GIF89a", b""):
        with pytest.raises(BadInput, match="not a sample made by Genmill: begins with"):
            read_record(data)


def test_a_damaged_sample_of_any_medium_holds_no_record(medium):
    for rest in (b"", b"\xff\xfe", b"damaged"):
        with pytest.raises(BadInput):
            read_record(medium.signature + rest)


DIGESTS = {  # no PNG: its bytes depend on the version of zlib as well
    "audio": "a5d8476aa5ace1e7d5698389f376e2218b6aeedb41b6329dee42ddf163624934",
    "text": "20942cfff55184e65064c063b9b2192531de2fa5260d6d2c0fef6b553519da78",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_bytes_of_a_sample_are_those_that_earlier_versions_wrote(name, tmp_path):
    record = RECORD | {"genmill": "0.1.0", "torch": "2"}
    shape = Shape(name, sample_rate=8000)
    sample = encode(find_medium(name), OUTPUTS[name], shape, record)
    assert hashlib.sha256(sample).hexdigest() == DIGESTS[name]


def test_what_is_riff_and_no_wave_is_no_sound():
    picture = BytesIO()
    Image.new("L", (8, 8)).save(picture, "WEBP")
    for data in (picture.getvalue(), b"RIFF\x24\0\0\0AVI LIST", b"RIFF"):
        assert data.startswith(b"RIFF")
        with pytest.raises(BadInput, match="not a sample"):
            medium_of(data)
