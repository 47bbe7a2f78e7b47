"""Database URLs as providers print them, and what reaches libpq of them."""

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from db.database_url import PREPARE, hosts_of, parse_url, prepare_threshold
from db.driver_errors import location
from db.errors import Refused


def libpq(text: str) -> dict:
    """What psycopg is called with."""
    url = parse_url(text).difference_update_query([PREPARE])
    return {
        name: str(value) for name, value in PGDialect_psycopg().create_connect_args(url)[1].items()
    }


NEON = (
    "postgresql://u:npg_x@ep-a-pooler.eu.aws.neon.tech/db?sslmode=require&channel_binding=require"
)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (NEON, {"host": "ep-a-pooler.eu.aws.neon.tech", "channel_binding": "require"}),
        ("postgres://u:p@h:6543/d", {"host": "h", "port": "6543", "user": "u", "dbname": "d"}),
        ("postgresql+psycopg2://u:p%40%2F%25%20@h/d", {"password": "p@/% "}),
        ("postgresql+asyncpg://postgres.ref:p@h/d", {"user": "postgres.ref"}),
        ("postgresql://u:p@[2001:db8::1]:1/d", {"host": "2001:db8::1", "port": "1"}),
        (
            "postgresql://u:p@a:1,b/d?target_session_attrs=primary",
            {"host": "a,b", "port": "1,5432"},
        ),
        ("postgresql://u@[::1]:1,[::2]:2/d", {"host": "::1,::2", "port": "1,2"}),
        ("postgresql:///d?host=/run/postgresql&user=u", {"host": "/run/postgresql", "user": "u"}),
        ("postgresql://u@%2Frun%2Fpostgresql/d", {"host": "/run/postgresql"}),
        ("postgresql://u@/d?host=/cloudsql/p:r:i", {"host": "/cloudsql/p:r:i"}),
        ("postgresql://h/d?user=u&password=p%26q", {"user": "u", "password": "p&q"}),
        ("postgresql://u:p@h/d?ssl=true", {"sslmode": "require"}),
        (
            "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/dev/null",
            {"sslmode": "verify-full", "sslrootcert": "/dev/null"},
        ),
        ("postgresql://u:p@h/d?options=-csearch_path%3Dgm", {"options": "-csearch_path=gm"}),
        ("postgresql://u:p@h/d?options=endpoint%3Dep-a", {"options": "endpoint=ep-a"}),
        ("postgresql://u:p@h/d?connect_timeout=3", {"connect_timeout": "3"}),
        ("postgresql://u:p@h/d?client_encoding=utf8", {"client_encoding": "utf8"}),
        ('"postgresql://u:p@h/d%20e"\n', {"dbname": "d e"}),
    ],
)
def test_what_providers_print_reaches_libpq(text, means):
    found = libpq(text)
    assert {name: found.get(name) for name in means} == means


@pytest.mark.parametrize(
    ("query", "threshold"),
    [
        ("", 5),
        ("?pgbouncer=true", None),
        ("?pgbouncer=false", 5),
        ("?prepare_threshold=off", None),
        ("?prepare_threshold=2", 2),
        ("?pgbouncer=true&prepare_threshold=3", 3),
    ],
)
def test_statements_are_prepared_as_the_url_says(query, threshold):
    assert prepare_threshold(parse_url(f"postgresql://u@h/d{query}")) == threshold


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("postgresql://u:p@h/d?sslmod=require", "no option 'sslmod' .did you mean 'sslmode'"),
        ("postgresql://u:p@h/d?connection_limit=1", "no option 'connection_limit'"),
        ("postgresql://u:p@h/d?sslmode=no-verify", "sslmode; use disable, allow, prefer"),
        ("postgresql://u:p@h/d?channel_binding=yes", "channel_binding; use disable, prefer"),
        ("postgresql://u:p@h/d?connect_timeout=soon", "connect_timeout; use a whole number"),
        ("postgresql://u:p@h/d?client_encoding=latin1", "client_encoding; use utf8"),
        ("postgresql://u:p@h/d?service=other", "no option 'service'"),
        ("postgresql://u:p@h/d?prepare_threshold=", "prepare_threshold; use a whole number"),
        ("postgresql://u:p@a,b/d?port=1,2,3", "a port that cannot be read"),
        ("postgresql://u:p@h/dsslmode=require", "begin the options with"),
        ("jdbc:postgresql://h/d", "is not a URL"),
        ("host=h dbname=d password=p", "is not a URL"),
        ("mysql://h/d", "the scheme 'mysql'"),
        ("sqlite:///x.db?timeout=5", "SQLite takes none"),
        ("sqlite:///", "names no file"),
        ("sqlite://host/x.db", "names no file"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(text, says):
    with pytest.raises(Refused, match=f"GENMILL_DATABASE_URL.*{says}"):
        parse_url(text)


@pytest.mark.parametrize(
    "path", ["/srv/a b.db", "relative.db", "/srv/50%.db", "/srv/a@b#c?d.db", "/srv/ü.db"]
)
def test_the_path_of_an_sqlite_file_is_taken_as_it_is(path):
    for scheme in ("sqlite", "sqlite+pysqlite"):
        url = parse_url(f"{scheme}:///{path}")
        assert (url.drivername, url.database) == ("sqlite", path)


def test_a_place_is_shown_without_user_and_password():
    assert location(parse_url("postgresql://u:p@h/d")) == "PostgreSQL database 'd' at h:5432"
    several = parse_url("postgresql://u:p@a:1,[::2]/d")
    assert hosts_of(several) == "a:1, [::2]:5432"
    assert hosts_of(parse_url("postgresql:///d")) == "local socket:5432"
