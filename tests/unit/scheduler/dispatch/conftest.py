"""Services on a database, a broker and a folder, and jobs in them."""

import pytest

from worker.services import Services
from worker.settings import Settings


@pytest.fixture
def services(tmp_path, database_url, broker_url):
    opened = Services(
        Settings(_env_file=None, home=tmp_path, database_url=database_url, redis_url=broker_url)
    )
    yield opened
    opened.close()
