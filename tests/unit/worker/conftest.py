"""What many rooms' tests need: the services of a fresh home."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.services import Services
from worker.settings import Settings


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    opened = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url))
    yield opened
    opened.close()
