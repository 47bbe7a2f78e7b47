"""What every case uses: the real commands on a machine of its own, and the data sets."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
PICTURES = Path("results")  # contact sheets
GENMILL = str(Path(sys.executable).with_name("genmill"))


@dataclass(frozen=True)
class Result:
    """One figure and its bound."""

    case: str
    figure: str
    bound: str
    kept: bool


@dataclass(frozen=True)
class Machine:
    """A running `genmill up` in a home of its own."""

    folder: Path

    def run(self, *words: str | Path) -> str:
        """Run a command and return its stdout; a command that fails ends the run."""
        code, output = self.try_to_run(*words)
        if code:
            raise subprocess.CalledProcessError(code, [GENMILL, *map(str, words)], output)
        return output

    def try_to_run(self, *words: str | Path) -> tuple[int, str]:
        """Run a command; return its exit code and its stdout."""
        done = subprocess.run(
            [GENMILL, *map(str, words)],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.strip()

    def start(self, *words: str, **settings: str) -> "subprocess.Popen[bytes]":
        """Start a command with further settings in a session of its own, and go on."""
        environment = self._environment | settings
        return subprocess.Popen([GENMILL, *words], env=environment, start_new_session=True)

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"GENMILL_HOME": str(self.folder / "home")}

    def version(self, model: str) -> dict:
        """The newest version of a model, as `model show --json` prints it."""
        return json.loads(self.run("model", "show", model, "--json"))


@contextmanager
def running_machine() -> Iterator[Machine]:
    """A machine with everything up, and one worker that has all cores; down at the end."""
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(Path(name))
        machine.run("up", "--detach", "--workers", "1")
        try:
            yield machine
        finally:
            machine.run("down")
