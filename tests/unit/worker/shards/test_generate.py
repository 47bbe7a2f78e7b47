"""Shards that run together: what fails for one of them is that one's alone."""

from types import SimpleNamespace

import pytest
import torch

from db.errors import Draining, LeaseLost, Panic
from tests.panics import PanicException
from worker.shards.context import ShardResult
from worker.shards.generate import _Shards


class Judge:
    """Of one shard: it raises an error at each call."""

    def __init__(self, error):
        self.error = error

    def add(self, _):
        raise self.error

    def store(self, _):
        raise self.error


@pytest.fixture
def shards(tmp_path):
    nothing = SimpleNamespace()
    return _Shards(nothing, nothing, nothing, nothing, tmp_path, None)


@pytest.mark.parametrize(
    "error",
    [LeaseLost(), IndexError("no such class"), OSError(28, "full"), torch.OutOfMemoryError()],
)
def test_a_judge_that_fails_ends_its_own_shard_alone(shards, error):
    shards._judged = {"a": Judge(error)}
    assert shards._judge("a", ["sample"]) is error
    assert shards._judge("b", ["sample"]) == ["sample"]
    shards._judged = {"a": Judge(error)}
    assert shards._with_verdicts(("a", ShardResult([]))) == ("a", error)


def test_a_panic_of_a_judge_is_told_as_one_and_a_drain_ends_all(shards):
    shards._judged = {"a": Judge(PanicException("out of bounds"))}
    assert isinstance(shards._judge("a", ["sample"]), Panic)
    shards._judged = {"a": Judge(Draining())}
    with pytest.raises(Draining):
        shards._judge("a", ["sample"])
