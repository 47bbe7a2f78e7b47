"""The schema in the database and the one in the code, and the error when they differ."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import UniqueConstraint, text

from db import schema
from db.errors import SchemaMismatch
from db.session import Database
from db.tables import Base


def test_the_migrations_create_exactly_the_tables(each_database):
    with each_database.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_head_is_the_last_migration():
    script = ScriptDirectory(str(schema.MIGRATIONS))
    assert script.get_current_head() == schema.HEAD
    assert len(script.get_heads()) == 1


def test_an_upgraded_database_passes_the_check(each_database):
    schema.check(each_database)
    assert schema.current(each_database) == schema.HEAD


def test_upgrading_again_changes_nothing(sqlite_url):
    schema.upgrade(sqlite_url)
    schema.check(Database(sqlite_url))


def test_upgrading_creates_the_file_and_its_folders(tmp_path):
    url = f"sqlite:///{tmp_path / 'a' / 'b' / 'genmill.db'}"
    schema.upgrade(url)
    schema.check(Database(url))


def test_concurrent_upgrades_take_turns(tmp_path):
    url = f"sqlite:///{tmp_path / 'genmill.db'}"
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: run_upgrade(url), range(2)))
    schema.check(Database(url))


def run_upgrade(url):
    # a process each: Alembic keeps its context in a module
    program = f"from db import schema; schema.upgrade({url!r})"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_empty_database_needs_an_upgrade(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'genmill.db'}")
    assert schema.current(database) is None
    with pytest.raises(SchemaMismatch, match="has no tables yet; run `genmill db upgrade`"):
        schema.check(database)


def test_an_older_database_needs_an_upgrade(database):
    stamp(database, "0000")
    with pytest.raises(SchemaMismatch, match=r"is at 0000.*run `genmill db upgrade`"):
        schema.check(database)


def test_a_newer_database_needs_a_newer_genmill(database, database_url):
    stamp(database, "9999")
    with pytest.raises(SchemaMismatch, match=r"at 9999, but .*; upgrade Genmill"):
        schema.check(database)
    with pytest.raises(SchemaMismatch, match="upgrade Genmill"):
        schema.upgrade(database_url)


def stamp(database, revision):
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})


@pytest.mark.parametrize("deleted", ["jobs", "shards", "batches"])
def test_what_refers_to_rows_that_are_deleted_has_an_index(deleted):
    """Without one, the database reads a whole table for each deleted row, under its lock."""
    for table in Base.metadata.sorted_tables:
        first = {next(iter(key.columns)).name for key in _keys(table)}
        referring = {key.parent.name for key in table.foreign_keys if _target(key) == deleted}
        assert referring <= first, table.name


def _keys(table):
    unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    return [table.primary_key, *unique, *table.indexes]


def _target(key):
    return key.target_fullname.partition(".")[0]


def test_the_tables_do_not_load_the_dialect_of_another_database():
    code = "import sys, db.tables; sys.exit('sqlalchemy.dialects.postgresql' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
