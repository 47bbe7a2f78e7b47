"""Marks are applied in order, read back, counted; what does not read back fails."""

from typing import ClassVar

import pytest

from db.errors import MarkFailed
from tests.unit.worker.marks.kit import SHAPES, marked, marking_of, samples_of
from worker.marks import MARKS, all_marks, find_mark
from worker.marks.apply import Marker, token_key
from worker.marks.base import Mark, Reading, Stage


def test_every_module_is_the_mark_of_its_name():
    assert [mark.name for mark in all_marks()] == list(MARKS)


class Planted(Mark):
    """A mark that behaves as a test wants."""

    name = "record"
    stage = Stage.BYTES
    reading: ClassVar = Reading("record", "present", {"a": 1})

    def read(self, data, keys, medium):
        return self.reading

    def expected(self, sample, marking):
        return {"a": 1}


@pytest.fixture
def planted(monkeypatch):
    """A mark in the place of another."""

    def plant(**changes):
        mark = type("Changed", (Planted,), changes)()
        monkeypatch.setattr("worker.marks.apply.find_mark", lambda _: mark)

    return plant


@pytest.mark.parametrize(
    ("reading", "fault"),
    [
        (Reading("record", "absent"), "reads back as absent"),
        (Reading("record", "damaged", {"a": 1}, why="cut"), "reads back as damaged: cut"),
        (Reading("record", "present", {"a": 2}), "its a reads back as 2, not 1"),
        (Reading("record", "present"), "its a reads back as None"),
    ],
)
def test_a_mark_that_does_not_read_back_fails_the_sample(planted, reading, fault):
    planted(reading=reading)
    with pytest.raises(MarkFailed, match=f"record of sample 0 failed: .*{fault}"):
        marked("image", "record")


def test_a_statistical_mark_that_does_not_read_back_is_counted(planted):
    planted(reading=Reading("record", "absent"), statistical=True)
    marker, _ = marked("text", "record")
    assert marker.data == {"record": {"applied": 0, "not_applied": {"it reads back as absent": 2}}}


def test_a_statistical_mark_that_reads_back_wrong_fails(planted):
    planted(reading=Reading("record", "present", {"a": 2}), statistical=True)
    with pytest.raises(MarkFailed):
        marked("text", "record")


def test_a_manifest_tells_some_reasons_apart_and_counts_the_rest_together(planted):
    planted(misfit=lambda self, sample, marking: f"it is number {sample.index}")
    marker, _ = marked("text", "record", count=30)
    reasons = marker.data["record"]["not_applied"]
    assert (len(reasons), reasons["other reasons"]) == (21, 10)


def test_what_does_not_fit_is_left_alone_and_counted(planted):
    def misfit(self, sample, marking):
        return "it is odd" if sample.index % 2 else ""

    def apply_bytes(self, samples, data, marking):
        assert [sample.index for sample in samples] == [0, 2]
        return [each + b" " for each in data]

    planted(misfit=misfit, apply_bytes=apply_bytes)
    marker, data = marked("text", "record", count=4)
    assert [each[-1:] for each in data] == [b" ", b"}", b" ", b"}"]
    assert marker.data == {"record": {"applied": 2, "not_applied": {"it is odd": 2}}}


def test_counts_grow_with_each_batch():
    marker = Marker(marking_of("text", "record", "iptc"))
    for _ in range(3):
        marker.encode(samples_of("text", 2), SHAPES["text"])
    assert {name: count["applied"] for name, count in marker.data.items()} == {
        "iptc": 6,
        "record": 6,
    }


def test_marks_do_not_depend_on_how_samples_are_grouped():
    marks = ("record", "iptc", "aigc", "visible_label")
    together = marked("image", *marks, count=5)[1]
    alone = Marker(marking_of("image", *marks))
    samples = samples_of("image", 5)
    assert [alone.encode([each], SHAPES["image"])[0] for each in samples] == together


def test_the_sampler_gets_the_key_of_the_mark_that_has_one(monkeypatch):
    marking = marking_of("text", "record", "iptc")
    assert token_key(None) is token_key(marking) is None
    monkeypatch.setattr(type(find_mark("iptc")), "token_hook", lambda self, marking: b"secret")
    assert token_key(marking) == b"secret"
