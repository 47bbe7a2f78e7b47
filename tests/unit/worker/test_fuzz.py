"""Addresses of any kind: of a database, a broker and a store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from db.database_url import parse_url
from db.errors import GenmillError
from tests import fuzzing
from tests.fuzzing import within_limits
from worker.redis_address import parse_redis_url
from worker.settings import Settings
from worker.store.address import parse_store_url

PARTS = st.sampled_from(
    [
        *(
            "sqlite",
            "postgresql",
            "redis",
            "rediss",
            "unix",
            "file",
            "s3",
            "http",
            ":",
            "://",
            "/",
            "//",
        ),
        *(
            "@",
            "user:pass@",
            "[::1]",
            "[",
            "]",
            "localhost",
            ":6379",
            ":99999999",
            "?",
            "#",
            "&",
            "=",
        ),
        *(
            "sslmode=require",
            "ssl_cert_reqs=none",
            "db=x",
            "%",
            "%00",
            "%zz",
            "..",
            "~",
            " ",
            "\n",
            "bucket",
        ),
    ]
)
URLS = st.lists(PARTS | st.text(max_size=3), max_size=9).map("".join)
SECRET = "hunter2"
READERS = {
    "database": parse_url,
    "broker": parse_redis_url,
    "store": parse_store_url,
    "settings": lambda url: Settings(_env_file=None, redis_url=url, store_url=url).broker,
}
fuzz = fuzzing.fuzz(len(READERS), few=400)


@pytest.mark.parametrize("kind", READERS)
@fuzz
@given(url=URLS)
def test_an_address_of_any_kind_gets_an_answer_that_holds_no_password(kind, url):
    url = url.replace("user:pass@", f"user:{SECRET}@")
    with within_limits():
        said = complaint(READERS[kind], url)
    assert f"user:{SECRET}@" not in said
    assert "\n" not in said


def complaint(read, url):
    """What is said of an address; nothing if it is taken."""
    try:
        read(url)
    except GenmillError as error:
        return str(error)
    except ValidationError:
        return ""
    return ""
