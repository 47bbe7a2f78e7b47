"""A part of the system that is struck at a failpoint."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.chaos.scenarios import Scenario, start
from tests.chaos.trial import Trial
from tests.integration.test_faults import children
from worker.failpoints import HOLD

PATIENCE_S = 60.0


class Struck:
    """A part of a trial that has been struck at a failpoint."""

    def __init__(self, trial: Trial, scenario: Scenario, point: str, action: str, nth: int) -> None:
        self.trial, self.scenario, self.point = trial, scenario, point
        before = len(trial.struck())
        first = f"{scenario.also}," if scenario.also else ""
        failpoint = f"{first}{point}:{action}:{nth}"
        self.process = start(scenario.part, trial.settings, failpoint, os.environ)
        self.acted = self._wait(action, before)
        (trial.settings.home / HOLD).unlink(missing_ok=True)

    def _wait(self, action: str, before: int) -> bool:
        """Wait until the part has ended, or is stopped; whether the failpoint acted."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            acted = self.point in self.trial.struck()[before:]
            if acted:
                (self.trial.settings.home / HOLD).unlink(missing_ok=True)
            ended = not self.process.is_alive()
            if ended or (acted and action == "stop" and self._is_frozen()):
                if acted:
                    self.trial.inject()
                return acted
            assert time.monotonic() < deadline, f"{self.point}: neither ended nor stopped"
            time.sleep(0.02)

    def _is_frozen(self) -> bool:
        """Whether it is stopped, and not within a write to SQLite: nobody else can write then.

        Children in a session of their own, such as a broker, go on.
        """
        group = self.process.pid
        pids = [group, *(pid for pid in children(group) if os.getpgid(pid) == group)]
        stopped = all(state_of(pid) == "T" for pid in pids)
        if not stopped or self.trial.services.database.dialect != "sqlite":
            return stopped
        try:
            with closing(sqlite3.connect(self.trial.services.database.url.database)) as probe:
                probe.execute("PRAGMA busy_timeout = 200")
                probe.execute("BEGIN IMMEDIATE")
                probe.execute("ROLLBACK")
        except sqlite3.OperationalError:
            os.killpg(self.process.pid, signal.SIGCONT)
            time.sleep(0.01)
            os.killpg(self.process.pid, signal.SIGSTOP)
            return False
        return True

    def wake(self) -> None:
        """Let a stopped part go on, and wait for its end."""
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.join(PATIENCE_S)
        assert not self.process.is_alive()

    def kill(self) -> None:
        if self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join(PATIENCE_S)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
