"""Two users of one machine share a home: either submits, looks, and takes over from the other."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.conftest import COMMAND, QUICK, Machine, Result

GROUP, ANN, BOB, CARL = "34001", "34011", "34012", "34013"
READ = "+dac_read_search"  # to reach a Python in a folder that is closed to others; writes nothing
CAPABILITIES = ("--inh-caps", f"-all,{READ}", "--ambient-caps", f"-all,{READ}")
# one that cannot reach this Python's own libraries may come up with another's
PROBE = "import sys, redis, torch, scheduler.cli; sys.exit(sys.version != sys.argv[1])"
SMALL = [f"--set={pair}" for pair in ("layers=1", "heads=2", "width=16", "context=16")]

pytestmark = [
    pytest.mark.xdist_group("e2e"),
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two other users"),
    pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is not installed"),
]


def acting_as(user: str, *groups: str) -> tuple[str, ...]:
    """The words that run a command as a user, who can read what this Python consists of."""
    words = ("setpriv", "--reuid", user, "--regid", user)
    words += ("--groups", ",".join(groups)) if groups else ("--clear-groups",)
    for more in ((), CAPABILITIES):
        probe = [*words, *more, sys.executable, "-c", PROBE, sys.version]
        if subprocess.run(probe, capture_output=True, cwd="/", check=False).returncode == 0:
            return (*words, *more)
    pytest.skip("other users cannot run this Python")


@dataclass
class User(Machine):
    """A user of the machine."""

    words: tuple[str, ...] = field(default=())

    def genmill(self, *words: str | Path) -> Result:
        done = subprocess.run(
            [*self.words, COMMAND, *words],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            timeout=180,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can enter, with a short path."""
    made = Path(tempfile.mkdtemp(prefix="gm-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def users(place) -> Iterator[dict[str, User]]:
    """Ann and Bob of one group, and Carl of none; the home is the group's."""
    home = place / "home"
    home.mkdir()
    os.chown(home, 0, int(GROUP))
    home.chmod(0o2770)
    made = {}
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    for name, number, groups in (("ann", ANN, [GROUP]), ("bob", BOB, [GROUP]), ("carl", CARL, [])):
        folder = place / name
        folder.mkdir(mode=0o755)
        os.chown(folder, int(number), int(number))
        own = {"HOME": str(folder), "GENMILL_HOME": str(home), "GENMILL_DEVICE": "cpu"}
        made[name] = User(folder, home, kept | QUICK | own, words=acting_as(number, *groups))
    yield made
    for user in made.values():
        user.close()


@pytest.mark.timeout(900)
def test_what_one_begins_the_other_goes_on_with(users):
    ann, bob, carl = users.values()
    ann.do("up", "--detach")
    (bob.folder / "book.txt").write_text("".join(f"line {n} of a book\n" for n in range(200)))

    assert bob.status()["running"]
    bob.do("dataset", "add", "book", "book.txt")
    training = ("enqueue", "train", "gpt", "--dataset", "book", "--name", "w", "--max-steps", "5")
    bob.do(*training, *SMALL, "--wait")
    job = ann.do("enqueue", "generate", "w", "--count", "3", "--wait")
    bob.do("artifact", "verify", job)
    bob.do("artifact", "download", job, "-o", "out")
    assert (bob.folder / "out" / "samples.jsonl").stat().st_uid == int(BOB)

    refused = bob.genmill("down")
    assert refused.code == 1
    assert "is run by another user" in refused.err
    ann.do("down")
    bob.do("up", "--detach")
    again = ann.do("enqueue", "generate", "w", "--count", "3", "--wait")
    ann.do("artifact", "reproduce", again, "1")
    found = {each["check"]: each for each in json.loads(bob.do("doctor", "--json"))}
    assert "shared by the group" in found["home"]["found"]
    bob.do("down")

    refused = carl.genmill("dataset", "add", "book", bob.folder / "book.txt")
    assert (refused.code, refused.err.count("\n")) == (3, 1), refused.err
    left = [path for path in ann.home.rglob("*") if path.lstat().st_mode & 0o007]
    assert left == []


@pytest.mark.timeout(300)
def test_each_has_a_home_of_their_own_unless_they_share_one(users, place):
    ann, bob, _ = users.values()
    for user in (ann, bob):
        user.move(user.folder / "own")
        user.do("up", "--workers", "0", "--detach")
    assert ann.status()["pid"] != bob.status()["pid"]
    for user in (ann, bob):
        assert [path for path in user.home.rglob("*") if path.lstat().st_mode & 0o077] == []
        user.do("down")
