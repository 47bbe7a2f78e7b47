import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from db.errors import BadInput
from worker.media import read_record
from worker.media.samples.containers import SampleRecord
from worker.media.samples.png import encode_png as encode_pngs
from worker.media.samples.png import parameters, read_png_record
from worker.media.samples.record import AI_GENERATED, Origin, SharedRecord, to_json
from worker.media.samples.wav import encode_wav, read_wav_record, write_wav

ORIGIN = Origin(
    family="gan",
    model="digits:3",
    weights_sha256="ab" * 32,
    seed=5,
    sampling={"truncation": 0.7, "micro_batch": 64},
    micro_batch=32,
)
IMAGE = np.arange(8 * 6 * 1, dtype=np.uint8).reshape(8, 6, 1)


def encode_png(image, record):
    [data] = encode_pngs([SampleRecord(record["index"], image, SharedRecord(record))])
    return data


def test_a_record_names_all_that_the_bytes_depend_on():
    record = ORIGIN.record(17, label="7")

    assert record["index"] == 17
    assert record["seed"] == 5
    assert record["label"] == "7"
    assert record["model"] == "digits:3"
    assert record["weights_sha256"] == "ab" * 32
    assert record["sampling"] == {"truncation": 0.7}
    assert record["dataset"] is None
    assert replace(ORIGIN, dataset="mnist:1").record(17)["dataset"] == "mnist:1"
    assert record["micro_batch"] == 32, "as it ran, not as it was asked for"
    assert record["torch"]
    assert record["genmill"]


def test_a_record_says_that_the_content_is_ai_generated():
    assert ORIGIN.record(0)["digital_source_type"] == AI_GENERATED
    assert "AI-generated" in parameters(ORIGIN.record(0), (28, 28))


def test_a_png_gives_its_record_back():
    record = ORIGIN.record(17, label="猫", prompt=None, custom_id="row-1")

    assert read_png_record(encode_png(IMAGE, record)) == record


def test_a_png_file_gives_its_record_back(tmp_path):
    path = tmp_path / "000000017.png"
    path.write_bytes(encode_png(IMAGE, ORIGIN.record(17)))

    assert read_png_record(path)["index"] == 17


def test_parameters_are_written_as_automatic1111_does():
    record = ORIGIN.record(17, prompt="a cat, sitting")

    prompt, settings = parameters(record, (28, 32)).split("\n")

    assert prompt == "a cat, sitting"
    assert settings.startswith("Steps: 1, Sampler: gan, Seed: 5, Size: 28x32, ")
    assert 'Model: "digits:3"' in settings, "a value with a colon is quoted"
    assert "Model hash: ababababab" in settings
    assert "Truncation: 0.7" in settings


def test_the_png_shows_its_parameters_to_other_readers():
    with Image.open(BytesIO(encode_png(IMAGE, ORIGIN.record(1, label="7")))) as image:
        assert image.info["parameters"].startswith("7\nSteps: 1")
        assert image.size == (6, 8)


def test_a_picture_without_a_record_is_refused():
    buffer = BytesIO()
    Image.fromarray(IMAGE[:, :, 0]).save(buffer, "PNG")

    with pytest.raises(BadInput, match="not made by Genmill"):
        read_png_record(buffer.getvalue())


def test_bytes_that_are_no_picture_are_refused():
    with pytest.raises(BadInput, match="not a readable PNG"):
        read_png_record(b"GIF89a...")


def test_a_wav_gives_its_record_back(tmp_path):
    record = ORIGIN.record(17, label="猫", prompt=None, custom_id="row-1")
    data = encode_wav(SampleRecord(17, np.zeros(9, np.float32), SharedRecord(record)), 8000)
    path = tmp_path / "000000017.wav"
    path.write_bytes(data)

    assert read_wav_record(data) == read_wav_record(path) == read_record(data) == record


def test_a_sound_without_a_record_is_refused():
    with pytest.raises(BadInput, match="not made by Genmill"):
        read_wav_record(write_wav(np.zeros(9, np.int16), 8000, {"ICMT": "recorded at home"}))
    with pytest.raises(BadInput, match="the sound has no readable record"):
        read_wav_record(write_wav(np.zeros(9, np.int16), 8000, {"ISFT": "genmill 1", "ICMT": "x"}))
    with pytest.raises(BadInput, match="not a WAV file"):
        read_wav_record(b"RIFX")


def test_a_record_is_one_line_in_the_letters_of_its_language():
    line = to_json(ORIGIN.record(1, prompt="你好\n世界"))

    assert "\n" not in line
    assert "你好" in line
    assert json.loads(line)["prompt"] == "你好\n世界"


def test_records_differ_where_the_weights_do():
    other = replace(ORIGIN, weights_sha256="cd" * 32)

    assert encode_png(IMAGE, other.record(1)) != encode_png(IMAGE, ORIGIN.record(1))
