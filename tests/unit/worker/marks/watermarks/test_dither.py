import numpy as np
import pytest

from worker.marks.watermarks.dither import (
    agreement,
    dithers,
    keystream,
    nearest,
    p_value,
    z_scores,
)

SECRET = bytes(range(32))


def test_a_keystream_is_known_by_the_secret_and_the_purpose_alone():
    assert keystream(SECRET, "picture", 40)[:8] == keystream(SECRET, "picture", 8)
    others = {keystream(secret, name, 8) for secret in (SECRET, b"other") for name in ("a", "b")}
    assert len(others) == 4


def test_keystreams_never_change():
    """They verify what was marked years ago."""
    assert keystream(SECRET, "picture", 4).hex() == "319c132b"


def test_marked_coefficients_agree_and_moved_by_half_a_step_at_most():
    coefficients = np.random.default_rng(0).normal(0, 50, 1000)
    dither = dithers(SECRET, "test", 1000)
    marked = nearest(coefficients, dither, 3.0)

    assert np.abs(marked - coefficients).max() <= 1.5
    assert agreement(marked, dither, 3.0) == pytest.approx(1)
    assert abs(z_scores(agreement(coefficients, dither, 3.0).sum(), 1000)) < 4


@pytest.mark.parametrize("content", [np.zeros(200), np.arange(200.0), np.full(200, 0.7)])
def test_the_bound_holds_over_keys_for_any_content(content):
    scores = []
    for key in range(2000):
        agreed = agreement(content, dithers(str(key).encode(), "test", 200), 3.0)
        scores.append(float(z_scores(agreed.sum(), 200)))

    assert np.std(scores) == pytest.approx(1, abs=0.06)
    for level in (0.5, 0.1, 0.01):
        assert np.mean([p_value(z, 1) <= level for z in scores]) <= level
