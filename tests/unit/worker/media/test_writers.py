import hashlib
import io
import json
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.errors import GenmillError, NonFinite, Refused
from worker.data.dataset import Shape
from worker.media import find_medium, read_record
from worker.media.samples.containers import SMALL_BYTES, SampleRecord, Tar
from worker.media.samples.record import Origin

ORIGIN = Origin("gan", "digits:1", "ab" * 32, 5, {"micro_batch": 64}, 64)


def image_sample(index, channels=1):
    pixels = np.random.default_rng(index).integers(0, 256, (28, 28, channels), np.uint8)
    return SampleRecord(index, pixels, ORIGIN.shared(label=str(index % 10)))


def text_sample(index, text="Once upon a time.\n从前"):
    return SampleRecord(index, f"{text} {index}", ORIGIN.shared(prompt="Once"))


def sound_sample(index):
    sound = np.random.default_rng(index).uniform(-1, 1, 500 + index).astype(np.float32)
    return SampleRecord(index, sound, ORIGIN.shared(label="猫"))


SAMPLES = {"image": image_sample, "text": text_sample, "audio": sound_sample}


def open_writer(media, path, *, sample_rate=8000):
    return find_medium(media).open_writer(path, Shape(media, sample_rate=sample_rate))


def write(media, path, indices):
    with open_writer(media, path) as writer:
        for index in indices:
            writer.add([SAMPLES[media](index)])
        return writer.close()


def test_a_tar_holds_each_picture_beside_its_record(tmp_path):
    written = write("image", tmp_path / "shard.tar", range(10, 13))

    with tarfile.open(fileobj=io.BytesIO(written.read())) as tar:
        names = tar.getnames()
        record = json.load(tar.extractfile("000000011.json"))
    assert names == [f"{i:09d}.{end}" for i in (10, 11, 12) for end in ("png", "json")]
    assert record == ORIGIN.record(11, label="1")
    assert written.media_type == "application/x-tar"


@pytest.mark.parametrize("media", ["image", "text", "audio"])
def test_a_sample_is_read_by_its_range_alone(tmp_path, media):
    written = write(media, tmp_path / "shard", range(5))

    data = written.read()
    for entry in written.index:
        part = data[entry.offset : entry.offset + entry.size]
        assert hashlib.sha256(part).hexdigest() == entry.sha256
        assert read_record(part)["index"] == entry.sample
    assert written.index.samples == range(5)


@pytest.mark.parametrize("media", ["image", "text", "audio"])
def test_one_shard_and_three_give_the_same_digests(tmp_path, media):
    whole = write(media, tmp_path / "whole", range(30))
    parts = [write(media, tmp_path / f"part{i}", range(i, i + 10)) for i in (0, 10, 20)]

    digests = [(entry.sample, entry.sha256) for part in parts for entry in part.index]
    assert digests == [(entry.sample, entry.sha256) for entry in whole.index]


@pytest.mark.parametrize("media", ["image", "text", "audio"])
def test_the_same_samples_make_the_same_file(tmp_path, media):
    first = write(media, tmp_path / "first", range(8)).read()
    assert write(media, tmp_path / "second", range(8)).read() == first


def test_a_line_holds_prompt_and_text_in_any_language(tmp_path):
    written = write("text", tmp_path / "shard.jsonl", [7])

    lines = written.read().decode().splitlines()
    assert len(lines) == 1
    row = json.loads(lines[0])
    assert row["prompt"] == "Once"
    assert row["text"] == "Once upon a time.\n从前 7"
    assert "从前" in lines[0]


def test_colour_pictures_keep_their_pixels(tmp_path):
    with open_writer("image", tmp_path / "shard.tar") as writer:
        writer.add([image_sample(3, channels=3)])
        written = writer.close()

    with (
        tarfile.open(fileobj=io.BytesIO(written.read())) as tar,
        Image.open(tar.extractfile("000000003.png")) as image,
    ):
        assert (np.asarray(image) == image_sample(3, channels=3).output).all()


def test_what_is_no_picture_is_refused_and_nothing_is_written(tmp_path):
    with (
        pytest.raises(NonFinite, match=r"sample 3 is float32 \(28, 28, 1\)"),
        open_writer("image", tmp_path / "shard.tar") as writer,
    ):
        writer.add([SampleRecord(3, np.zeros((28, 28, 1), np.float32), ORIGIN.shared())])
    assert list(tmp_path.iterdir()) == []


def test_a_small_object_stays_in_memory_and_a_large_one_becomes_a_file(tmp_path):
    small = write("text", tmp_path / "small", range(5))
    with open_writer("text", tmp_path / "large") as writer:
        for index in range(40):
            writer.add([text_sample(index, "x" * (SMALL_BYTES // 16))])
        large = writer.close()

    assert isinstance(small.content, bytes)
    assert large.content == tmp_path / "large"
    assert [*tmp_path.iterdir()] == [large.content]
    assert [json.loads(line)["index"] for line in large.read().splitlines()] == [*range(40)]
    for entry in large.index:
        data = large.read()[entry.offset : entry.offset + entry.size]
        assert hashlib.sha256(data).hexdigest() == entry.sha256


def test_samples_come_in_the_order_of_their_numbers(tmp_path):
    with (
        pytest.raises(GenmillError, match="follow one another"),
        open_writer("text", tmp_path / "shard") as writer,
    ):
        writer.add([text_sample(4), text_sample(6)])


@pytest.mark.parametrize("media", ["image", "text", "audio"])
def test_samples_have_the_same_bytes_however_many_are_added_at_once(tmp_path, media):
    with open_writer(media, tmp_path / "together") as writer:
        writer.add([SAMPLES[media](index) for index in range(7)])
        together = writer.close()
    assert together == write(media, tmp_path / "alone", range(7))


def test_a_tar_is_what_the_standard_library_writes(tmp_path):
    samples = [image_sample(index) for index in (7, 10**9, 10**15)]
    for sample in samples:
        with open_writer("image", tmp_path / "shard.tar") as writer:
            writer.add([sample])
            written = writer.close().read()
        [png], expected = find_medium("image").encode([sample], Shape("image")), io.BytesIO()
        with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for suffix, data in ((".png", png), (".json", sample.json)):
                member = tarfile.TarInfo(f"{sample.index:09d}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        assert written == expected.getvalue()[: len(written)]
        assert Tar.extension == ".tar"


def test_a_sound_is_16_bit_pcm_and_clipped_at_full_scale(tmp_path):
    sound = np.array([0, 0.5, -1, 1.5], np.float32)
    with open_writer("audio", tmp_path / "shard.tar", sample_rate=11_025) as writer:
        writer.add([SampleRecord(3, sound, ORIGIN.shared())])
        written = writer.close()

    with (
        tarfile.open(fileobj=io.BytesIO(written.read())) as tar,
        wave.open(tar.extractfile("000000003.wav")) as file,
    ):
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 11_025)
        samples = np.frombuffer(file.readframes(10), np.int16)
    assert samples.tolist() == [0, 16384, -32767, 32767]


def test_what_is_no_sound_is_refused_by_the_writer_of_sounds(tmp_path):
    with (
        open_writer("audio", tmp_path / "shard.tar") as writer,
        pytest.raises(NonFinite, match=r"sample 3 is uint8 \(28, 28, 1\), not a float32 \(T,\)"),
    ):
        writer.add([image_sample(3)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_when_the_file_is_closed_at_the_latest(tmp_path):
    path = tmp_path / "shard.jsonl"
    path.symlink_to("/dev/full")

    def fill():
        with open_writer("text", path) as writer:
            writer.add([text_sample(1, "x" * 2 * SMALL_BYTES)])
            writer.close()

    with pytest.raises(OSError, match="No space left"):
        fill()


def test_a_writer_left_on_an_error_leaves_no_file(tmp_path):
    def fail_half_way():
        with open_writer("text", tmp_path / "shard.jsonl") as writer:
            writer.add([text_sample(1, "x" * 2 * SMALL_BYTES)])
            assert [*tmp_path.iterdir()]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_writer_takes_nothing_more(tmp_path):
    with open_writer("image", tmp_path / "shard.tar") as writer:
        writer.close()
        with pytest.raises(GenmillError, match="is closed"):
            writer.add([image_sample(1)])


def test_an_unknown_medium_is_refused_by_name():
    with pytest.raises(
        Refused, match=r"no medium 'imag'.*did you mean 'image'.*known: audio, image, "
    ):
        find_medium("imag")
