import numpy as np
import numpy.typing as npt
import pytest
import torch

from worker.networks.network import Draw, Key, Row

KEYS: list[Key] = [(1, 0), (1, 1), (0, 7), (2**63 - 1, 2**40), (1, 1)]


def generators(stream: int) -> list[np.random.Generator]:
    """What a row's numbers are defined by: a fresh generator for each key."""
    return [
        np.random.Generator(np.random.Philox(key=list(key), counter=[0, 0, 0, stream]))
        for key in KEYS
    ]


def stacked(rows: list[npt.NDArray[np.generic]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(rows).astype(np.float32))


@pytest.mark.parametrize("stream", [0, 3])
@pytest.mark.parametrize("shape", [(), (1,), (64,), (3, 5), (2, 0)])
def test_numbers_are_those_of_a_fresh_philox_for_each_key(
    shape: tuple[int, ...], stream: int
) -> None:
    draw = Draw(KEYS)
    normal = stacked([g.standard_normal(shape) for g in generators(stream)])
    uniform = stacked([g.integers(0, 2**24, shape) / 2**24 for g in generators(stream)])
    assert torch.equal(draw.normal(*shape, stream=stream), normal)
    assert torch.equal(draw.uniform(*shape, stream=stream), uniform)
    for high in (1, 3, 1000, 2**40):
        integers = np.stack([g.integers(0, high, shape) for g in generators(stream)])
        assert torch.equal(draw.integers(high, *shape, stream=stream), torch.from_numpy(integers))


def test_what_was_drawn_before_does_not_matter() -> None:
    draw = Draw(KEYS)
    draw.integers(5, 3)  # leaves half of a 64-bit number unused
    draw.normal(1)
    first, second = draw.uniform(9), Draw(KEYS).uniform(9)
    assert torch.equal(first, second)


def test_rows_of_two_jobs_share_a_draw() -> None:
    rows = [Row(4, seed=1), Row(4, seed=2), Row(5, seed=1)]
    together = Draw([row.key for row in rows]).normal(8)
    alone = [Draw([row.key]).normal(8)[0] for row in rows]
    assert torch.equal(together, torch.stack(alone))


def test_a_row_is_itself_and_not_its_content() -> None:
    assert len({Row(4, seed=1), Row(4, seed=1)}) == 2
