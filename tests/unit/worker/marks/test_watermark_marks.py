"""The watermarks as marks: of samples and files, by the keys on record."""

import json
import tracemalloc
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from db.errors import WrongKey
from db.keys import get, rewrap
from scheduler.provenance.text_watermarks import _clearest
from scheduler.provenance.verdicts import Evidence, judge
from scheduler.results.pieces import Item
from tests.keyrings import add_key, keyring_of, revoke_key, rotate_key, settings_in
from tests.unit.worker.marks.watermarks.test_pictures import landscapes
from tests.unit.worker.marks.watermarks.test_sounds import voice
from tests.unit.worker.networks.test_decoding import TOKENIZER
from tests.unit.worker.networks.test_token_watermark import SEED, rows, texts
from worker.data.dataset import Shape
from worker.keys.keyring import Keyring, context_of
from worker.keys.master import open_master
from worker.mark_profile import Profile
from worker.marks import find_mark
from worker.marks.apply import Marker, token_key
from worker.marks.base import Marking, Reading
from worker.marks.text_watermark import tokenizer_in
from worker.marks.watermarks.readings import read_by_keys
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import Origin
from worker.settings import Settings

ORIGIN = Origin("gan", "m:1", "ab" * 32, SEED, {"micro_batch": 4}, 4, torch="2", genmill="1+g0")
SHAPES = {
    "image": Shape("image", size=64, channels=3),
    "audio": Shape("audio", sample_rate=8000),
    "text": Shape("text", vocabulary=TOKENIZER.size),
}
MARKS = {media: find_mark(find_medium(media).watermark) for media in SHAPES}


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path / "home")


@pytest.fixture
def key(database, settings):
    return add_key(database, settings, "watermark")


@pytest.fixture
def keys(database, settings, key):
    """The keyring as it is now."""
    return lambda: keyring_of(database, settings)


def marking_of(media, ring, **given):
    marks = (MARKS[media].name,)
    return Marking(Profile(name="p", marks=marks), ring, SHAPES[media], **given)


def outputs(media):
    if media == "image":
        return list(landscapes(3))
    return [voice(seed=seed) for seed in range(3)]


def samples(found, **origin):
    shared = Origin(**(vars(ORIGIN) | origin)).shared()
    return [SampleRecord(index, output, shared) for index, output in enumerate(found)]


def read(media, data, ring):
    return MARKS[media].read(data, ring, find_medium(media))


@pytest.mark.parametrize("media", ["image", "audio"])
def test_a_marked_file_reads_as_expected(keys, key, media):
    marking = marking_of(media, keys())
    plain = samples(outputs(media))
    files = Marker(marking).encode(plain, SHAPES[media])
    for sample, data in zip(plain, files, strict=True):
        found = read(media, data, keys())
        assert (found.state, found.says["key"]) == ("present", key)
        assert dict(MARKS[media].expected(sample, marking)).items() <= found.says.items()
        assert found.says["p_value"] < 1e-30
        assert find_medium(media).read_record(data)["index"] == sample.index
    for data in find_medium(media).encode(plain, SHAPES[media]):
        assert read(media, data, keys()).state == "absent"


@pytest.mark.parametrize("media", ["image", "audio"])
def test_what_an_older_key_marked_is_still_known(database, settings, keys, key, media):
    [data] = Marker(marking_of(media, keys())).encode(samples(outputs(media)[:1]), SHAPES[media])
    newer = rotate_key(database, settings, key)
    assert read(media, data, keys()).says["key"] == key
    [other] = Marker(marking_of(media, keys())).encode(samples(outputs(media)[:1]), SHAPES[media])
    assert read(media, other, keys()).says["key"] == newer


@pytest.mark.parametrize("media", ["image", "audio"])
def test_what_a_revoked_key_marked_is_no_proof(database, settings, keys, key, media):
    [data] = Marker(marking_of(media, keys())).encode(samples(outputs(media)[:1]), SHAPES[media])
    rotate_key(database, settings, key)
    revoke_key(database, key)
    found = read(media, data, keys())
    assert (found.state, found.says["trust"], found.says["key"]) == ("damaged", "revoked", key)
    assert f"its key {key} was revoked on " in found.why
    medium = find_medium(media)
    evidence = Evidence("a.png", Item("", data, None), medium, readings=[found])
    assert judge(evidence).known_by is None


def test_the_clearest_reading_of_a_text_by_a_revoked_key_stays_one():
    readings = [
        Reading("text_watermark", "absent", {"p_value": 0.4}),
        Reading("text_watermark", "damaged", {"p_value": 1e-9, "trust": "revoked"}, "revoked"),
    ]
    found = _clearest(readings)
    assert (found.state, found.says) == ("damaged", {"p_value": 2e-9, "trust": "revoked"})
    assert (
        _clearest([replace(readings[1], says={"p_value": 0.0009}), readings[0]]).state == "absent"
    )


def test_a_thief_cannot_hide_a_mark_of_ours_under_one_of_a_revoked_key(database, settings, keys):
    revoked, current = (
        keys().current("watermark").id,
        add_key(database, settings, "watermark", tenant="b"),
    )
    revoke_key(database, revoked)
    chances = {keys().secret_of(revoked): 1e-90, keys().secret_of(current): 1e-40}
    found = read_by_keys("m", keys(), [lambda secret: (chances[secret], {})], level=1e-6)
    assert (found.state, found.says["key"]) == ("present", current)


def test_a_mark_whose_key_is_not_here_is_not_called_absent(database, settings, keys, key):
    plain = samples(outputs("image")[:1])
    [marked] = Marker(marking_of("image", keys())).encode(plain, SHAPES["image"])
    [unmarked] = find_medium("image").encode(plain, SHAPES["image"])
    settings.master_key.chmod(0o644)
    for data in (marked, unmarked):
        with pytest.raises(WrongKey, match="can be used by every user"):
            read("image", data, keys())
    settings.master_key.chmod(0o400)
    add_key(database, settings, "watermark", tenant="b")
    new = settings.home / "new.key"
    new.write_text("ab" * 32)
    new.chmod(0o400)
    late = Settings(_env_file=None, home=settings.home, key_file=new, key_command=None)
    wrapped = open_master(late).wrap(keys().secret_of(key), context_of(key))
    with database.write() as session:  # `key rewrap` is halfway
        assert rewrap(session, get(session, key), wrapped)
    for ring in (keys(), keyring_of(database, late)):
        with pytest.raises(WrongKey, match="is not the one that wrapped"):
            read("image", unmarked, ring)
    assert read("image", marked, keyring_of(database, late)).says["key"] == key


def test_a_cropped_jpeg_is_known(keys):
    marking = marking_of("image", keys())
    [data] = Marker(marking).encode(samples(outputs("image")[:1]), SHAPES["image"])
    file = BytesIO()
    Image.open(BytesIO(data)).crop((2, 3, 60, 61)).save(file, "JPEG", quality=75)
    assert read("image", file.getvalue(), keys()).state == "present"


def test_a_copy_that_is_many_times_as_large_takes_little_memory(keys):
    [data] = Marker(marking_of("image", keys())).encode(
        samples(outputs("image")[:1]), SHAPES["image"]
    )
    file = BytesIO()
    Image.open(BytesIO(data)).resize((4000, 4000), Image.Resampling.NEAREST).save(file, "BMP")
    tracemalloc.start()
    assert read("image", file.getvalue(), keys()).state == "present"
    assert tracemalloc.get_traced_memory()[1] < 150 << 20  # as numbers they are 384 MB
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("media", "output", "why"),
    [
        ("image", np.zeros((28, 28, 1), np.uint8), "under 64 pixels a side"),
        ("image", "a text", "not a picture"),
        ("audio", voice(0.1), "shorter than 0.22 s"),
        ("audio", "a text", "not a sound"),
        ("text", "a short text", "under 200 tokens"),
        ("text", voice(0.1), "not a text"),
    ],
)
def test_what_a_mark_does_not_fit_is_counted_by_the_reason(keys, media, output, why):
    marker = Marker(marking_of(media, keys(), tokens=TOKENIZER.encode))
    sample = samples([output])[0]
    assert MARKS[media].misfit(sample, marking_of(media, keys())) == why
    if isinstance(output, str) == (media == "text"):
        marker.encode([sample], SHAPES[media])
        assert marker.counts[MARKS[media].name].not_applied == {why: 1}


@pytest.mark.parametrize("media", ["image", "audio"])
def test_damaged_files_say_so(keys, media):
    assert read(media, b"none", keys()).state == "damaged"
    assert read(media, b"", keys()).why


@pytest.mark.parametrize("media", ["image", "audio", "text"])
def test_a_file_of_another_medium_is_not_tested(keys, media):
    for other in SHAPES.keys() - {media}:
        found = MARKS[other].read(b"none", keys(), find_medium(media))
        assert found.state == "not applicable"


def test_without_keys_nothing_can_be_read():
    [data] = find_medium("image").encode(samples(outputs("image")[:1]), SHAPES["image"])
    assert read("image", data, Keyring(())).state == "not applicable"


def test_a_text_is_known_by_its_models_tokenizer(keys, key, tmp_path):
    marking = marking_of("text", keys(), tokens=TOKENIZER.encode)
    secret = token_key(marking)
    plain = samples(texts(rows(3, secret)).values(), sampling={"temperature": 1.0})
    marker = Marker(marking)
    files = marker.encode(plain, SHAPES["text"])
    assert marker.counts["text_watermark"].applied == 3
    TOKENIZER.save(tmp_path)
    tokenize = tokenizer_in(tmp_path)
    for data, sample in zip(files, plain, strict=True):
        # half of a pair is no text to a tokenizer, and hides no watermark
        line = json.dumps({"text": f"{sample.output}\ud800"}).encode()
        for each in (data, sample.output.encode(), line):  # with the record and without
            found = MARKS["text"].read_text(each, keys(), tokenize)
            assert (found.state, found.says["key"]) == ("present", key)
            assert found.says["tokens_scored"] > 200
        assert read("text", data, keys()).state == "not applicable"


def test_unmarked_and_short_texts_are_told_apart(keys, key, tmp_path):
    marking = marking_of("text", keys(), tokens=TOKENIZER.encode)
    [text] = texts(rows(1, None)).values()
    assert MARKS["text"].misfit(samples([text])[0], marking).startswith("too little choice")
    found = MARKS["text"].read_text(text.encode(), keys(), TOKENIZER.encode)
    assert found.state == "absent"
    found = MARKS["text"].read_text(text[:40].encode(), keys(), TOKENIZER.encode)
    assert found.state == "not applicable"
    assert found.why == "35 tokens to score; under 50 say nothing"
    assert MARKS["text"].read_text(b"\xff", keys(), TOKENIZER.encode).state == "damaged"


def test_of_an_endless_text_the_beginning_is_read(keys):
    given = []
    text = "a word " * 200_000
    MARKS["text"].read_text(text.encode(), keys(), lambda some: given.append(some) or range(300))
    assert text.startswith(given[0])
    assert len(given[0]) < 500_000


def test_the_likeliest_tokens_carry_no_mark(keys):
    sample = samples(["a text" * 99], sampling={"temperature": 0.0})[0]
    why = MARKS["text"].misfit(sample, marking_of("text", keys()))
    assert why == "no choice of tokens at temperature 0"
