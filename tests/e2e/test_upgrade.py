"""Upgrading a home that an older commit's code wrote: what is in it loads, and is made again."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
OLD = "6efa71a"  # the last commit before files had format numbers
SMALL = ["--set", "channels=4", "--set", "latent=4", "--set", "batch_size=8"]


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """A folder with the code of the older commit; the repository stays as it is."""
    words = ["git", "-C", str(ROOT), "archive", OLD, "db", "worker", "scheduler"]
    try:
        archive = subprocess.run(words, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        pytest.skip(f"no git history with commit {OLD} here: {said.decode().strip()}")
    folder = tmp_path / "old"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


class Upgraded:
    """A machine, and the switch from the older code to that of this checkout."""

    def __init__(self, machine, old: Path) -> None:
        self.machine, self.old = machine, str(old)
        self.use_old()

    def use_old(self) -> None:
        self.machine.environment["PYTHONPATH"] = self.old

    def use_new(self) -> None:
        del self.machine.environment["PYTHONPATH"]


@pytest.fixture
def upgraded(machine, old_code) -> Upgraded:
    (machine.folder / "words.txt").write_text("The cat sees the mat. The dog has a box. " * 200)
    pictures = machine.folder / "pictures"
    draw = np.random.default_rng(0)
    for kind, level in (("dark", 60), ("bright", 190)):
        (pictures / kind).mkdir(parents=True)
        for number in range(30):
            values = draw.normal(level, 20, (28, 28)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(pictures / kind / f"{number}.png")
    return Upgraded(machine, old_code)


def started(machine, *words: str) -> str:
    """Submit a training, wait until it has done some steps, and stop everything."""
    job = machine.do("enqueue", *words)

    def under_way() -> bool:
        shown = json.loads(machine.do("job", "show", job, "--json"))
        return (shown["progress"] or {}).get("done", 0) > 1

    machine.until("the first steps", under_way)
    machine.do("down")
    return job


def test_what_an_older_commit_made_loads_and_is_made_again(upgraded):
    machine = upgraded.machine
    do = machine.do
    do("up", "--detach")
    do("dataset", "add", "words", "words.txt")
    do("dataset", "add", "pictures", "pictures")
    do(
        *["enqueue", "train", "hmm", "--dataset", "words", "--name", "chatter", "--wait"],
        *["--max-steps", "5", "--seed", "1", "--set", "states=3"],
    )
    do(
        *["enqueue", "train", "gan", "--dataset", "pictures", "--name", "shades", "--wait"],
        *["--max-steps", "20", "--seed", "1", *SMALL],
    )
    texts = do("enqueue", "generate", "chatter", "--count", "4", "--seed", "7", "--wait")
    shades = do("enqueue", "generate", "shades", "--count", "4", "--seed", "7", "--wait")
    training = started(
        machine,
        # not a gan: one of so few pictures may collapse in as many steps as a fast machine makes
        *["train", "vae", "--dataset", "pictures", "--name", "later", "--seed", "1"],
        *["--max-seconds", "20"],
    )
    waiting = do("enqueue", "generate", "shades", "--count", "3", "--seed", "8")

    upgraded.use_new()
    do("db", "upgrade")
    checked = json.loads(do("db", "check", "--json"))
    assert checked["models"] == {"checked": 2, "not_checked": 0, "unloadable": []}
    do("up", "--detach")
    for job in (texts, shades):
        again = json.loads(do("artifact", "reproduce", job, "2", "--json"))
        assert (again["reproduced"], again["same_content"]) == (True, True)
        # the older code has no commit of its own: it names the one that was installed
        assert again["differences"].keys() <= {"genmill"}
        do("artifact", "verify", job)
    do("job", "wait", training, waiting)
    assert "checkpoint" in do("job", "logs", training)
    do(
        *["enqueue", "finetune", "chatter", "--dataset", "words", "--wait"],
        *["--max-steps", "3", "--seed", "2"],
    )
    made = json.loads(do("model", "show", "chatter", "--json"))
    assert made["version"] == 2
    do("down")


def test_folders_are_exchanged_with_an_older_commit_and_its_code_refuses_the_newer_record(upgraded):
    machine = upgraded.machine
    upgraded.use_new()
    machine.do("up", "--detach")
    machine.do("dataset", "add", "words", "words.txt")
    machine.do(
        *["enqueue", "train", "hmm", "--dataset", "words", "--name", "chatter", "--wait"],
        *["--max-steps", "5", "--seed", "1", "--set", "states=3"],
    )
    machine.do("model", "export", "chatter", "new")
    machine.do("down")
    upgraded.use_old()
    refused = machine.genmill("job", "list")
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert "upgrade Genmill" in refused.err
    machine.move(machine.folder / "other-home")
    assert machine.do("model", "import", "new", "--name", "chatter") == "chatter:1"
    machine.do("model", "export", "chatter", "old")
    upgraded.use_new()
    machine.move(machine.folder / "third-home")
    assert machine.do("model", "import", "old", "--name", "chatter") == "chatter:1"
    assert machine.do("db", "check").splitlines()[-1] == "models: 1 of 1 version would load"
