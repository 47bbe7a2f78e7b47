import pytest

from db.errors import Refused
from scheduler.schedules.parsing import make_paths_absolute, parse_command, parse_repeated


def test_words_become_a_spec_and_the_way_to_enqueue_it():
    words = "enqueue train gan --dataset d:2 --name m --set arch=mlp --priority 3 --wait"
    command = parse_command(words.split())
    assert command.spec is not None
    assert command.spec.model_dump(include={"family", "dataset", "params"}) == {
        "family": "gan",
        "dataset": "d:2",
        "params": {"arch": "mlp"},
    }
    assert (command.priority, command.wait, command.dry_run) == (3, True, False)


def test_images_to_make_samples_from_are_named_by_their_dataset():
    words = "enqueue generate m --count 4 --dataset faces:2 --set mode=inpaint --set mask=[0,0,8,8]"
    command = parse_command(words.split())
    assert command.spec is not None
    assert command.spec.model_dump(include={"dataset", "params"}) == {
        "dataset": "faces:2",
        "params": {"mode": "inpaint", "mask": [0, 0, 8, 8]},
    }


@pytest.mark.parametrize(
    "words",
    [
        "",
        "enqueue",
        "enqueue dance",
        "job list",
        "enqueue train",
        "enqueue train --help",
        "enqueue generate m --count 1 --set =3",
        "enqueue generate m --count 1 --prompt a --prompts b.jsonl",
    ],
)
def test_words_that_are_no_enqueue_command_are_refused(words, capsys):
    with pytest.raises(Refused):
        parse_command(words.split())
    assert capsys.readouterr() == ("", "")


def test_what_repeats_cannot_have_one_idempotency_key():
    with pytest.raises(Refused, match="--idempotency-key"):
        parse_repeated(["enqueue", "generate", "m", "--count", "1", "--idempotency-key", "k"])


def test_files_are_anchored_wherever_they_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path / "a.jsonl")
    for words in ("enqueue batch a.jsonl", "enqueue batch --priority 2 a.jsonl"):
        assert make_paths_absolute(words.split())[-1] == here
    assert (
        make_paths_absolute(["enqueue", "generate", "m", "--prompts=a.jsonl"])[-1]
        == f"--prompts={here}"
    )
    untouched = ["enqueue", "generate", "batch", "--label", "a.jsonl"]
    assert make_paths_absolute(untouched) == untouched
