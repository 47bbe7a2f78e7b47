"""The closed loop, small, by `make slow`; `make results ONLY=loop` runs a larger one."""

import pytest

from tests.e2e.closed_loop import Budget, close_the_loop

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow]

# a few hundred samples are too few for a Frechet distance that can be trusted
SMALL = Budget(
    family="vae",
    size=16,
    settings=("channels=16", "hidden=128", "latent=16", "lr=0.008", "warm_up=0.8"),
    first_steps=200,
    retrain_steps=250,
    more=4000,
    count=300,
    policy='resamples = 200\n[primary]\nmetric = "label_agreement"\nmargin = 0.02\n',
)


@pytest.mark.timeout(600)
def test_new_data_promote_a_retrained_version_and_damaged_data_do_not(
    machine, tmp_path, shared_data
):
    machine.do("up", "--detach")

    def run(*words):
        done = machine.genmill(*words)
        return done.code, done.out.strip()

    story = close_the_loop(run, tmp_path, shared_data / "mnist", SMALL)

    assert story.champions == [1, 2, 2, 1]
    assert (story.retrained["versions"], story.damaged["versions"]) == (["digits:2"], ["digits:3"])
    assert story.retrained["verdict"]["outcome"] == "promoted"
    assert story.damaged["verdict"]["outcome"] == "refused"
    assert [job["status"] for job in story.damaged["jobs"]] == ["succeeded", "succeeded", "failed"]
    better, worse = (
        each["numbers"]["label_agreement"]["value"] for each in (story.retrained, story.damaged)
    )
    assert worse < 0.3 < better
    assert "label_agreement" in story.damaged["jobs"][-1]["error"]
    outcomes = [(entry["outcome"], entry["version"]) for entry in reversed(story.history)]
    assert outcomes == [("promoted", 1), ("promoted", 2), ("refused", 3), ("rolled back", 1)]
