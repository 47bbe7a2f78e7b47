"""What is about to be published: a sample whose marks do not read back stays where it is."""

import pytest

from tests.unit.worker.marks.kit import marked, marking_of
from worker.media import find_medium
from worker.services.mark_checks import MarkChecks

MARKS = ("record", "iptc")


@pytest.mark.parametrize("medium", ["image", "audio", "text"])
def test_marks_that_read_back_may_be_published(services, medium):
    checks = MarkChecks(services, marking_of(medium, *MARKS).profile, find_medium(medium))
    assert [checks.fault(data, None) for data in marked(medium, *MARKS)[1]] == ["", ""]


def test_a_mark_that_is_lacking_or_damaged_is_named(services):
    checks = MarkChecks(services, marking_of("image", *MARKS).profile, find_medium("image"))
    [without, _] = marked("image", "record")[1]
    assert checks.fault(without, None) == "its mark iptc reads back as absent"
    counts = {name: {"applied": 1, "not_applied": {"too small": 1}} for name in MARKS}
    assert checks.fault(without, counts) == ""
    none = {name: {"applied": 2, "not_applied": {}} for name in MARKS}
    assert "absent" in checks.fault(without, none)
    [whole, _] = marked("image", *MARKS)[1]
    assert checks.fault(whole.replace(b'"index":', b'"index'), counts)
