"""What is about to be published: a sample whose marks do not read back stays where it is."""

from dataclasses import replace

import pytest

from db.errors import WrongKey
from tests.keyrings import add_key, keyring_of
from tests.unit.worker.marks.kit import marked, marking_of, samples_of
from worker.marks.apply import Marker
from worker.media import find_medium
from worker.services.mark_checks import MarkChecks

MARKS = ("record", "iptc")


def test_a_machine_without_the_key_refuses_no_sample(services, tmp_path):
    add_key(services.database, services.settings, "watermark")
    ring = keyring_of(services.database, services.settings)
    marking = replace(marking_of("image", "picture_watermark"), keys=ring)
    [data, _] = Marker(marking).encode(samples_of("image"), marking.shape)
    checks = MarkChecks(services, marking.profile, marking.medium)
    assert checks.fault(data, None) == ""
    services.settings.master_key.rename(tmp_path / "elsewhere")
    with pytest.raises(WrongKey, match="the installation key is missing"):
        checks.fault(data, None)


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
