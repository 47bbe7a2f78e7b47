"""Evaluations of small networks by a judge that is trained for a moment."""

import pytest

from worker.evaluation import judge, usefulness


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch):
    monkeypatch.setattr(judge, "STEPS", 30)
    monkeypatch.setattr(usefulness, "STEPS", 5)
