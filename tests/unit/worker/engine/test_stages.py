"""What a run tells of its stages, and the story in its log."""

import pytest

from tests.families.kit import Recorder, image_dataset, small_training
from worker.engine.stages import Laps, Stages
from worker.engine.train import train
from worker.families import find_family

VAE = find_family("vae")


def test_stages_are_told_in_the_order_in_which_they_began_with_how_far_they_are() -> None:
    told: list[list[dict[str, object]]] = []
    stages = Stages(told.append)
    with stages.under_way("training"), stages.under_way("validating", 2, "batches") as advance:
        for _ in range(3):
            advance()
    assert told[0] == [{"name": "training"}]
    counts = [each[1]["done"] for each in told[1:-2]]
    assert counts == [0, 1, 2, 2]
    assert told[-2:] == [[{"name": "training"}], []]


def test_a_stage_ends_with_an_error_too() -> None:
    told: list[list[dict[str, object]]] = []

    def fail() -> None:
        with Stages(told.append).under_way("loading"):
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - the one above
        fail()
    assert told == [[{"name": "loading"}], []]


def test_laps_share_the_time_among_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.0, 15.0, 16.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    laps = Laps()
    laps.end("loading")
    laps.end("validating")
    laps.end("loading")
    laps.skip()
    assert laps.seconds == {"loading": 3.0, "validating": 3.0}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, object]:
    """A small training with everything that one tells."""
    folder = tmp_path_factory.mktemp("story")
    monitor = Recorder()
    dataset = image_dataset(folder / "dataset")
    given = {"validate_every": 10, "batch_size": 2}
    asked = small_training(VAE, dataset, folder / "run", params=given, max_steps=25)
    return monitor, train(asked, monitor)


def test_a_training_comes_to_each_stage_and_records_what_is_outside_its_budget(story) -> None:
    monitor, trained = story
    names = list(dict.fromkeys(each["name"] for told in monitor.stages_told for each in told))
    assert names[:2] == ["loading", "training"]
    assert set(names[2:]) == {"validating", "measuring speed"}
    assert monitor.stages_told[-1] == []
    last = [each for told in monitor.stages_told for each in told if each["name"] == "validating"]
    assert (last[-1]["done"], last[-1]["total"], last[-1]["unit"]) == (16, 16, "batches")
    assert set(trained.stage_seconds) == {"loading", "validating", "measuring speed", "storing"}
    assert trained.metrics["epochs"] == pytest.approx(25 * 2 / 64, abs=0.01)


def test_the_log_tells_speed_epochs_validations_and_the_end(story) -> None:
    monitor, _ = story
    text = "\n".join(monitor.logs)
    assert "steps/s: the budget holds about 25 steps, 0.78 epochs" in text
    assert "step 10: validation loss" in text
    assert ", the best so far" in text
    assert "the budget is spent after" in text
    assert "25 steps, 0.78 epochs" in text
    assert "the version keeps the weights of step" in text
