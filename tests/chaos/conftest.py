"""What tests of faults share: places for the record and the objects, and the table at the end."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.table import Row, Table
from tests.chaos.trial import DEADLINE_S, FOLDER, LEASE_S, LOOP_S, SERVERS, Trial
from worker.settings import Settings

TABLE = pytest.StashKey[Table]()
ROWS = "rows of the table"  # that a process of pytest-xdist hands to the one that started it


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None and TABLE in session.config.stash:
        output[ROWS] = session.config.stash[TABLE].data()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    rows = getattr(node, "workeroutput", {}).get(ROWS, [])
    node.config.stash.setdefault(TABLE, Table()).add(rows)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    table = config.stash.get(TABLE, None)
    if table is None or not table.rows:
        return
    terminalreporter.section("faults")
    for line in table.lines():
        terminalreporter.write_line(line)
    if target := os.environ.get("CHAOS_JSON"):
        table.write(Path(target))
        terminalreporter.write_line(f"written to {target}")


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    """The session's table of faults."""
    return pytestconfig.stash.setdefault(TABLE, Table())


@pytest.fixture(params=[FOLDER, SERVERS])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    """Settings of a fresh record and store: SQLite with a folder, PostgreSQL with S3."""
    if request.param == FOLDER:
        url = request.getfixturevalue("sqlite_url")
        return {"database_url": url, "store_url": (tmp_path / "store").as_uri()}
    s3 = request.getfixturevalue("s3")
    url = request.getfixturevalue("postgresql_database_url")
    return {"database_url": url, "store_url": s3.url, "s3_endpoint_url": s3.endpoint_url}


@pytest.fixture
def trial(
    request: pytest.FixtureRequest, tmp_path: Path, broker_url: str, table: Table
) -> Iterator[Callable[..., Trial]]:
    """Makes the trial of a fault on a deployment: `trial("a fault", places, bound_s=5)`.

    Further settings replace the usual ones, in which every waiting time is short.
    """
    rows: list[Row] = []
    with ExitStack() as stack:

        def make(
            fault: str, places: dict[str, object], *, bound_s: float = 0.0, **settings: object
        ) -> Trial:
            given = {**QUICK, "home": tmp_path, "redis_url": broker_url, **places, **settings}
            made = Trial(Settings(_env_file=None, **given), table.row(fault, bound_s=bound_s))
            stack.callback(made.stop)
            rows.append(made.row)
            return made

        yield make
    for row in rows:
        assert row.injected, f"{row.fault}: the fault was never there"


QUICK = {
    "device": "cpu",
    "threads": 1,
    "lease_s": LEASE_S,
    "loop_s": LOOP_S,
    "deadline_s": DEADLINE_S,
    "max_claims": 1000,  # a shard that is lost again and again is not poison here
    "failpoint": "hold",
}
