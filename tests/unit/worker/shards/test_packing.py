"""From samples to stored objects, beside the model."""

import hashlib
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from db.errors import Cancelled, MarkFailed, NonFinite, Unreachable
from worker.data.dataset import Shape
from worker.engine.generate import Sample
from worker.keys.keyring import Keyring
from worker.mark_profile import Profile
from worker.marks.base import Marking
from worker.media import find_medium, read_record
from worker.media.fingerprints.bits import ROW_BYTES, encode
from worker.media.image import ImageMedium
from worker.media.samples.index import ENTRY_BYTES
from worker.media.samples.record import Origin
from worker.media.samples.tags import Label
from worker.shards.packing import QUEUED_STEPS, Packer
from worker.shards.storing import Part
from worker.store.folder import FolderStore

ORIGIN = Origin("gan", "digits:1", "ab" * 32, 5, {"micro_batch": 8}, 8)
SHAPE = Shape("image", labels=("a", "b"), size=8, channels=1)


class HeldLease:
    """The part of a lease that packing uses."""

    def __init__(self, start: int, stop: int) -> None:
        self.claim = SimpleNamespace(
            shard_id=f"shard-{start}", idx=0, start=start, stop=stop, alone=False
        )
        self.pauses = 0

    def pause_hang_check(self) -> None:
        self.pauses += 1

    def resume_hang_check(self) -> None:
        self.pauses -= 1


def part(job: str, start: int, stop: int) -> Part:
    named: Any = SimpleNamespace(id=job, custom_id=f"job-{job}", spec_hash="0" * 64)
    lease: Any = HeldLease(start, stop)
    return Part(named, SimpleNamespace(), lease)  # type: ignore[arg-type]


def samples(start: int, stop: int, dtype: type = np.uint8) -> list[Sample]:
    return [
        Sample(i, np.full((8, 8, 1), i, dtype), "a", None, None, micro_batch=4)
        for i in range(start, stop)
    ]


def packer(
    store: FolderStore, parts: list[Part], folder: Path, marking: Marking | None = None
) -> Packer:
    return Packer(store, SHAPE, {each: ORIGIN for each in parts}, folder, marking)


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def test_each_large_part_is_an_object_stored_when_its_last_sample_comes(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr("worker.shards.packing.SMALL_BYTES", 100)
    one, two = part("1", 0, 3), part("2", 4, 9)
    with packer(store, [one, two], tmp_path) as packing:
        packing.add([(one, samples(0, 3)), (two, samples(4, 6))])
        packing.add([(two, samples(6, 9))])
        results = dict(packing.finish())
    for each, indices in ((one, range(3)), (two, range(4, 9))):
        [artifact] = results[each].artifacts
        assert artifact.index.samples == indices
        assert artifact.name == "samples-000000.tar"
        assert artifact.key == f"jobs/{each.job.id}/blobs/{artifact.sha256}"
        with store.open(artifact.key) as file:
            assert len(file.read()) == artifact.size
        assert each.lease.pauses == 0


def packed(store: FolderStore, artifact: Any) -> bytes:
    place = artifact.packed
    with store.open(place.key, start=place.offset, stop=place.offset + place.size) as file:
        return file.read()


def test_small_parts_share_an_object_with_the_bytes_that_each_has_alone(store, tmp_path):
    parts = [part(job, 0, size) for job, size in (("1", 2), ("2", 5), ("3", 1))]
    with packer(store, parts, tmp_path) as packing:
        packing.add([(each, samples(0, each.lease.claim.stop)) for each in parts])
        results = dict(packing.finish())
    made = [results[each].artifacts[0] for each in parts]
    assert list(store.keys("packs")) == [made[0].key] == [f"packs/{made[0].packed.pack:016x}"]
    assert list(store.keys("jobs")) == []
    for artifact in made:
        assert hashlib.sha256(packed(store, artifact)).hexdigest() == artifact.sha256
    _, long, _ = made  # its index follows it
    start = long.packed.offset + long.size
    with store.open(long.key, start=start, stop=start + 5 * ENTRY_BYTES) as file:
        assert hashlib.sha256(file.read()).hexdigest() == long.index.sha256
    assert {each.lease.pauses for each in parts} == {0}


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [({"TOGETHER": 3}, [1, 3, 3]), ({"PACK_BYTES": 1}, [1] * 7), ({"PACK_EVERY_S": 0}, [2, 2, 3])],
)
def test_a_pack_is_stored_once_it_is_full_or_has_waited(store, tmp_path, monkeypatch, limit, sizes):
    for name, value in limit.items():
        monkeypatch.setattr(f"worker.shards.packing.{name}", value)
    parts = [part(str(number), 0, 1) for number in range(7)]
    with packer(store, parts, tmp_path) as packing:
        for step in (parts[:2], parts[2:4], parts[4:]):
            packing.add([(each, samples(0, 1)) for each in step])
        results = dict(packing.finish())
    keys = [each.key for result in results.values() for each in result.artifacts]
    assert sorted(keys.count(key) for key in set(keys)) == sizes


def test_a_record_has_the_job_s_custom_id_and_the_rows_of_the_forward_pass(store, tmp_path):
    one = part("1", 0, 1)
    with packer(store, [one], tmp_path) as packing:
        packing.add([(one, samples(0, 1))])
        [(_, result)] = packing.finish()
    with store.open(result.artifacts[0].key, start=512) as file:
        record = read_record(file.read(1000))
    assert (record["custom_id"], record["micro_batch"], record["label"]) == ("job-1", 4, "a")


def test_the_bytes_do_not_depend_on_what_is_packed_beside_them(store, tmp_path):
    def digests(jobs: str) -> dict[str, str]:
        parts = [part(job, 0, 3) for job in jobs]
        with packer(store, parts, tmp_path) as packing:
            packing.add([(each, samples(0, 3)) for each in parts])
            return {each.job.id: made.artifacts[0].sha256 for each, made in packing.finish()}

    assert digests("1234") == digests("1") | digests("23") | digests("4")


def test_a_part_with_a_bad_sample_fails_alone(store, tmp_path):
    one, bad, two = part("1", 0, 2), part("2", 0, 2), part("3", 0, 2)
    with packer(store, [one, bad, two], tmp_path) as packing:
        packing.add([(one, samples(0, 2)), (bad, samples(0, 1, np.float32)), (two, samples(0, 2))])
        packing.add([(bad, samples(1, 2))])
        results = dict(packing.finish())
    assert isinstance(results[bad], NonFinite)
    assert results[one].artifacts
    assert results[two].artifacts


MARKED = Marking(Profile(name="house", marks=("iptc", "aigc")), Keyring(()), SHAPE)


def test_each_part_counts_its_own_marks(store, tmp_path):
    one, two = part("1", 0, 3), part("2", 4, 9)
    with packer(store, [one, two], tmp_path, MARKED) as packing:
        packing.add([(one, samples(0, 3)), (two, samples(4, 6))])
        packing.add([(two, samples(6, 9))])
        results = dict(packing.finish())
    for each, count in ((one, 3), (two, 5)):
        [artifact] = results[each].artifacts
        done = {"applied": count, "not_applied": {}}
        assert artifact.marks == {"aigc": done, "iptc": done}


FINGERPRINTED = Marking(Profile(name="found", marks=("fingerprint",)), Keyring(()), SHAPE)


@pytest.mark.parametrize("count", [1, 3])
def test_fingerprints_lie_beside_the_samples_alone_and_in_a_pack(store, tmp_path, count):
    parts = [part(str(number), 5 * number, 5 * number + 5) for number in range(count)]
    drawn = np.random.default_rng(0).integers(0, 256, (5 * count, 8, 8, 1), np.uint8)
    made = [Sample(i, each, "a", None, None, micro_batch=4) for i, each in enumerate(drawn)]
    with packer(store, parts, tmp_path, FINGERPRINTED) as packing:
        for each in parts:
            first, stop = each.lease.claim.start, each.lease.claim.stop
            packing.add([(each, made[first : first + 2])])
            packing.add([(each, made[first + 2 : stop])])
        results = dict(packing.finish())
    rows = encode(ImageMedium().fingerprints(list(drawn), SHAPE))
    for each in parts:
        samples, fingerprints = results[each].artifacts
        assert (samples.kind, fingerprints.kind) == ("samples", "fingerprints")
        assert (fingerprints.packed is None) == (count == 1)
        whole = range(*(ROW_BYTES * n for n in (each.lease.claim.start, each.lease.claim.stop)))
        expected = rows[whole.start : whole.stop]
        assert hashlib.sha256(expected).hexdigest() == fingerprints.sha256
        if fingerprints.packed is not None:
            assert packed(store, fingerprints) == expected
        assert fingerprints.media_type.endswith("medium=image")


def test_a_part_whose_marks_do_not_read_back_fails_alone(store, tmp_path, monkeypatch):
    tag = ImageMedium.with_tags

    def forget(self, data, tags):
        return data if b'"index":4,' in data else tag(self, data, tags)

    monkeypatch.setattr(ImageMedium, "with_tags", forget)
    one, two = part("1", 0, 3), part("2", 4, 9)
    with packer(store, [one, two], tmp_path, MARKED) as packing:
        packing.add([(one, samples(0, 3)), (two, samples(4, 9))])
        results = dict(packing.finish())
    assert isinstance(results[two], MarkFailed)
    assert results[one].artifacts


def test_an_error_from_the_engine_ends_its_part(store, tmp_path):
    one, cancelled = part("1", 0, 2), part("2", 0, 2)
    with packer(store, [one, cancelled], tmp_path) as packing:
        packing.add([(one, samples(0, 2)), (cancelled, samples(0, 1))])
        packing.add([(cancelled, Cancelled())])
        results = dict(packing.finish())
    assert isinstance(results[cancelled], Cancelled)
    assert results[one].artifacts


class Failing(FolderStore):
    """Cannot store the objects of job 2."""

    def put_bytes(self, prefix: str, data: bytes, *, durable: bool = True) -> Any:
        if prefix.startswith("jobs/2/"):
            raise Unreachable("the store is away")
        return super().put_bytes(prefix, data, durable=durable)


def test_a_part_that_cannot_be_stored_fails_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.shards.packing.SMALL_BYTES", 0)
    parts = [part(job, 0, 2) for job in "123"]
    with packer(Failing(tmp_path / "store"), parts, tmp_path) as packing:
        packing.add([(each, samples(0, 2)) for each in parts])
        results = dict(packing.finish())
    assert [isinstance(results[each], Unreachable) for each in parts] == [False, True, False]


class WithoutPacks(FolderStore):
    """Cannot store packs."""

    def put_as(self, key: str, data: bytes, *, durable: bool = True) -> Any:
        raise Unreachable("the store is away")


def test_a_pack_that_cannot_be_stored_fails_its_parts(tmp_path):
    parts = [part(job, 0, 2) for job in "12"]
    with packer(WithoutPacks(tmp_path / "store"), parts, tmp_path) as packing:
        packing.add([(each, samples(0, 2)) for each in parts])
        results = dict(packing.finish())
    assert [type(results[each]) for each in parts] == [Unreachable, Unreachable]


class Slow(FolderStore):
    """Stores nothing until it is let go."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.go = threading.Event()
        self.waiting = 0

    def put_bytes(self, prefix: str, data: bytes, *, durable: bool = True) -> Any:
        self.waiting += 1
        self.go.wait(20)
        return super().put_bytes(prefix, data, durable=durable)


def test_a_slow_store_makes_the_model_wait_and_its_hang_checks_pause(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.shards.packing.SMALL_BYTES", 0)
    store = Slow(tmp_path / "store")
    parts = [part(str(number), 0, 1) for number in range(60)]
    added: list[int] = []

    def add_all(packing: Packer) -> None:
        for number, each in enumerate(parts):
            packing.add([(each, samples(0, 1))])
            added.append(number)

    with packer(store, parts, tmp_path) as packing:
        model = threading.Thread(target=add_all, args=(packing,))
        model.start()
        time.sleep(0.5)
        held = len(added)
        assert held < 30 + QUEUED_STEPS
        assert parts[-1].lease.pauses > 0
        store.go.set()
        model.join()
        assert len(dict(packing.finish())) == 60
    assert {each.lease.pauses for each in parts} == {0}


def test_a_large_object_is_built_in_a_file_that_is_gone_once_stored(store, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.media.samples.containers.SMALL_BYTES", 2000)
    one, folder = part("1", 0, 20), tmp_path / "scratch"
    folder.mkdir()
    with packer(store, [one], folder) as packing:
        packing.add([(one, samples(0, 10))])
        packing.add([(one, samples(10, 20))])
        [(_, result)] = packing.finish()
    assert result.artifacts[0].index.samples == range(20)
    assert list(folder.iterdir()) == []


def test_what_is_abandoned_leaves_no_file(store, tmp_path, monkeypatch):
    monkeypatch.setattr("worker.media.samples.containers.SMALL_BYTES", 2000)
    one, folder = part("1", 0, 20), tmp_path / "scratch"
    folder.mkdir()

    def fail_half_way() -> None:
        with packer(store, [one], folder) as packing:
            packing.add([(one, samples(0, 10))])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(folder.iterdir()) == []


def test_fingerprints_are_those_of_what_is_delivered(store, tmp_path):
    """A label before a sound is part of the sound that people get."""
    shape = Shape("audio", sample_rate=8000)
    profile = Profile(name="labelled", marks=("fingerprint", "visible_label"))
    marking, each = Marking(profile, Keyring(()), shape), part("1", 0, 1)
    sound = np.sin(np.arange(8000) ** 1.2 / 9).astype(np.float32) / 2
    with Packer(store, shape, {each: ORIGIN}, tmp_path, marking) as packing:
        packing.add([(each, [Sample(0, sound, None, None, None, micro_batch=4)])])
        results = dict(packing.finish())
    medium = find_medium("audio")
    delivered = medium.with_label(sound, Label(medium.label_text, 0.05), shape)
    rows = encode(medium.fingerprints([delivered], shape))
    assert hashlib.sha256(rows).hexdigest() == results[each].artifacts[1].sha256
    assert rows != encode(medium.fingerprints([sound], shape))
