"""Verdicts as people read them."""

import pytest

from scheduler.cli.verdict_report import _reading


@pytest.mark.parametrize(("chance", "told"), [(0.0, "p value <1e-300"), (0.25, "p value 0.25")])
def test_a_p_value_that_is_too_small_for_a_number_is_not_told_as_none(chance, told):
    mark = {"state": "present", "says": {"p_value": chance}, "why": None}
    assert _reading(mark) == f"present; {told}"
