"""A policy file is checked before anything runs; what it lacks is the medium's default."""

import pytest

from db.errors import BadInput, Refused
from worker.gate.policy import policy_for, read_policy
from worker.media import MEDIA


def test_a_file_overrides_the_sections_that_it_has(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('seed = 7\n[primary]\nmetric = "fid"\nmargin = 0.5\n[noise]\ntraining_sd = 1\n')
    policy = policy_for("image", read_policy(path))
    assert policy.primary.margin == 0.5
    assert policy.primary.confidence == 0.95
    assert policy.noise.training_sd == 1
    assert [guard.metric for guard in policy.guard] == ["memorisation", "class_kl"]
    assert policy.seed == 7


@pytest.mark.parametrize("medium", MEDIA)
def test_each_medium_has_a_default(medium):
    assert policy_for(medium, {}).resamples == 1000


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"primry": {}}, "did you mean 'primary'"),
        ({"primary": {"metric": "beauty"}}, "an evaluation of image has no metric 'beauty'"),
        ({"primary": {"metric": "loss"}}, "no metric 'loss'; known: class_kl, coverage"),
        ({"guard": [{"metric": "memorization", "at_most": 1}]}, "did you mean 'memorisation'"),
        (
            {"primary": {"metric": "feature_entropy", "direction": "lower"}},
            "feature_entropy is better when it is closer to real data's value",
        ),
        ({"primary": {"metric": "fid", "direction": "higher"}}, "fid is better when it is lower"),
        ({"primary": {"metric": "fid", "margin": -1}}, "primary.margin"),
        ({"primary": {"metric": "fid", "margin": float("nan")}}, "primary.margin"),
        ({"primary": {"metric": "fid", "confidence": 95}}, "primary.confidence"),
        (
            {"primary": {"metric": "fid", "cofidence": 0.9}},
            "primary has no key 'cofidence' (did you mean",
        ),
        ({"guard": [{"metric": "kid"}]}, "give one of at_most, at_least and not_worse_by"),
        ({"guard": [{"metric": "kid", "at_most": 1, "at_least": 0}]}, "guard #1: give one of"),
        ({"guard": {"metric": "kid"}}, "guard: expected a list; in TOML, write [[guard]]"),
        ({"guard": [{}]}, "guard #1.metric: needed, but not given"),
        ({"primary": 3}, "primary: expected a table of keys and values (got 3)"),
        ({"primary": {"metric": None}}, "primary.metric: expected a text (got null)"),
        ({"resamples": 3}, "resamples: expected at least 100 (got 3)"),
        ({"noise": {"training_sd": "much"}}, "noise.training_sd: expected a number (got 'much')"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(given, complaint):
    with pytest.raises(Refused) as error:
        policy_for("image", given)
    assert complaint in str(error.value)


@pytest.mark.parametrize("content", [b"primary = [", b"\xff\xfe", b"x" * 3 * 2**20])
def test_what_is_not_toml_is_refused(tmp_path, content):
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        read_policy(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(BadInput, match=f"{path} cannot be read"):
            read_policy(path)
