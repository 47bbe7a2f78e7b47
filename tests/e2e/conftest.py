"""The `genmill` command, run as a user runs it, and the processes that it starts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("genmill")
PATIENCE_S = 90.0
QUICK = {"GENMILL_LOOP_S": "0.3", "GENMILL_DEADLINE_S": "5", "GENMILL_THREADS": "1"}


@dataclass
class Result:
    """A command's exit code and output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Machine:
    """A home, and an environment to run commands in."""

    folder: Path  # where commands run
    home: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def genmill(self, *words: str | Path) -> Result:
        """Run a command to its end."""
        done = subprocess.run(
            [COMMAND, *words],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            timeout=PATIENCE_S * 2,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def do(self, *words: str | Path) -> str:
        """Run a command that must succeed; return what it printed, without the last newline."""
        done = self.genmill(*words)
        assert done.code == 0, f"genmill {words}: {done.err}\n{self.logs()}"
        return done.out.strip()

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in the foreground, in its own session."""
        with (self.folder / "foreground.log").open("ab") as log:
            process = subprocess.Popen(
                [COMMAND, *words],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def status(self) -> Any:
        return json.loads(self.do("status", "--json"))

    def until(self, what: str, happens: Callable[[], object]) -> Any:
        """Wait until `happens` returns something true; after `PATIENCE_S` fail and name `what`."""
        deadline = time.monotonic() + PATIENCE_S
        while not (result := happens()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not in {PATIENCE_S:g} s\n{self.logs()}")
            time.sleep(0.1)
        return result

    def state(self) -> Any:
        """The supervisor's state file, which is quicker to read than to run a command."""
        path = self.home / "run" / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def until_ready(self) -> None:
        self.until("ready", lambda: self.state().get("ready"))

    def move(self, home: Path) -> None:
        """Use another home from now on."""
        self.home = home
        self.environment["GENMILL_HOME"] = str(home)

    def processes(self) -> list[int]:
        """The ids of every process that was started with this home, except zombies."""
        mark = f"GENMILL_HOME={self.environment['GENMILL_HOME']}".encode()
        return [int(each.name) for each in Path("/proc").glob("[0-9]*") if _has(each, mark)]

    def logs(self) -> str:
        """Every log."""
        logs = [*self.home.glob("logs/*.log"), *self.folder.glob("*.log")]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)

    def close(self) -> None:
        self.genmill("down")
        for process in self.started:
            process.kill()
            process.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def _has(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended meanwhile, or belongs to another user
        return False


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine on which nothing is configured and nothing runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GENMILL_")}
    home = tmp_path / "home"
    made = Machine(
        tmp_path, home, kept | QUICK | {"GENMILL_HOME": str(home), "GENMILL_DEVICE": "cpu"}
    )
    yield made
    made.close()
