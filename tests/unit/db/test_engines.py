"""What a connection to PostgreSQL sends, and how it is reused."""

import pytest
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName, QueryCanceled
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError

from db import batches, engines
from db.database_url import parse_url
from db.driver_errors import translate_errors
from db.engines import POSTGRESQL_CONNECT
from db.errors import Refused, Unreachable
from db.session import Database, clock

FAR_EAST = "options=-ctimezone%3DAsia/Tokyo"


def test_no_startup_option_is_sent_that_a_pooler_refuses():
    assert "options" not in POSTGRESQL_CONNECT


def test_options_in_the_url_reach_the_server(postgresql_database_url):
    database = Database(f"{postgresql_database_url}?options=-csearch_path%3Dpublic,pg_temp")
    with database.read() as session:
        assert session.scalar(text("SHOW search_path")) == "public,pg_temp"
    database.dispose()


def test_times_are_in_utc_whatever_zone_the_server_is_in(postgresql_database_url):
    near, far = (Database(f"{postgresql_database_url}{query}") for query in ("", f"?{FAR_EAST}"))
    batch = far.transact(lambda session: batches.complete(session, batches.add(session, 0).id))
    with near.read() as session, far.read() as other:
        assert other.scalar(text("SHOW timezone")) == "Asia/Tokyo"
        assert abs((clock(session) - clock(other)).total_seconds()) < 5
        found = [batches.get(each, batch.id).created_at for each in (session, other)]
    assert found == [batch.created_at] * 2
    assert {at.utcoffset().total_seconds() for at in found} == {0}
    near.dispose()
    far.dispose()


def test_a_write_gives_up_on_locks_and_slow_statements_and_a_read_does_not(
    postgresql_database_url,
):
    database = Database(postgresql_database_url)
    shown = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    with database.write() as session:
        assert tuple(session.execute(text(shown)).one()) == ("20s", "1min")
    with database.read() as session:
        assert tuple(session.execute(text(shown)).one()) == ("0", "0")
    with database.connect() as connection:  # a migration may rewrite a large table
        assert tuple(connection.execute(text(shown)).one()) == ("20s", "0")
    database.dispose()


@pytest.mark.parametrize(("given", "used"), [("off", None), ("0", 0), ("12", 12)])
def test_the_url_says_when_statements_are_prepared(postgresql_database_url, given, used):
    database = Database(f"{postgresql_database_url}?prepare_threshold={given}")
    with database.read() as session:
        assert session.connection().connection.driver_connection.prepare_threshold == used
    database.dispose()


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(Refused, match="prepare_threshold; use a whole number, or off"):
        Database("postgresql://u@h/d?prepare_threshold=soon")


def test_a_connection_that_was_cut_while_idle_is_replaced_unseen(
    postgresql_database_url, monkeypatch
):
    database = Database(postgresql_database_url)
    with database.read() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    other = Database(postgresql_database_url)
    with other.write() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    monkeypatch.setattr(engines, "PING_AFTER_S", -1)
    with database.read() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) != pid
    database.dispose()
    other.dispose()


def test_a_connection_in_steady_use_is_not_tried_first(postgresql_database_url, monkeypatch):
    database = Database(postgresql_database_url)
    with database.read() as session:
        session.execute(text("SELECT 1"))
    tried = []
    monkeypatch.setattr(engines, "_answers", lambda *_: tried.append(1))
    with database.read() as session:
        session.execute(text("SELECT 1"))
    assert tried == []
    database.dispose()


URL_AT_HAND: URL = make_url("postgresql://u:geheim@h/d")


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (InvalidSqlStatementName("no _pg3_1"), "prepare_threshold=off"),
        (DuplicatePreparedStatement("_pg3_1"), "prepare_threshold=off"),
        (QueryCanceled("statement timeout"), "genmill doctor"),
    ],
)
def test_what_a_pooler_or_a_timeout_does_is_named_with_its_remedy(cause, remedy):
    error = DBAPIError.instance("SELECT 1", {}, cause, Exception)
    with pytest.raises(Unreachable, match=remedy), translate_errors(URL_AT_HAND):
        raise error


def test_a_url_keeps_its_own_parameters():
    assert parse_url("postgresql://u@h/d?sslmode=require").query == {"sslmode": "require"}
