"""A path that cannot be used is what the message names, and no other; it says what to do."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from psycopg.pq import Conninfo
from sqlalchemy import func, select

from db import jobs
from db.database_url import parse_url
from db.errors import Refused
from db.path_errors import shown
from db.tables import Batch, DatasetVersion, Job, ModelVersion, Schedule
from scheduler.cli import cli
from scheduler.submission.path_arguments import PathArgument
from tests.evaluations import add_dataset, add_evaluation, add_version, images
from tests.unit.scheduler.cli import path_faults as faults
from tests.unit.scheduler.cli import path_rows as rows
from worker.redis_address import _TLS, parse_redis_url
from worker.settings import Settings
from worker.store.address import _OPTIONS, parse_store_url

TABLES = (Job, Batch, DatasetVersion, ModelVersion, Schedule)
PARSERS = {"s3": parse_store_url, "rediss": parse_redis_url, "postgresql": parse_url}
IN_SETTINGS = [fault for fault in faults.OF_TARGETS if fault is not faults.with_a_nul]
WRITING = {faults.not_writable, faults.on_a_full_disk, faults.on_a_read_only_disk}


def leaves(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        yield from leaves(found, *words, name)


def names_path(param: click.Parameter) -> bool:
    words = f"{param.name} {param.metavar} {param.human_readable_name}"
    return isinstance(param.type, click.Path | click.File) or bool(
        re.search(r"\b(path|file|dir|folder|directory)\b", words, re.IGNORECASE)
    )


def cases(table, found) -> list:
    """Every row with every fault; in the ordinary suite each row meets some of them."""
    named = [
        (f"{row}-{fault.__name__}", row, fault)
        for some in table.values()
        for row in some
        for fault in found
        if (row.kind, fault) != ("either", faults.of_the_other_kind)
    ]
    return [
        pytest.param(row, fault, id=name, marks=[] if n % 3 == 0 else pytest.mark.slow)
        for n, (name, row, fault) in enumerate(named)
    ]


def test_every_parameter_that_names_a_path_has_a_row_and_the_type_of_paths():
    found = {
        (words, param.name): param
        for words, command in leaves(cli)
        for param in command.params
        if names_path(param)
    }
    assert found.keys() == rows.INPUTS.keys() | rows.TARGETS.keys()
    assert all(isinstance(param.type, PathArgument) for param in found.values())


def test_every_setting_that_names_a_path_has_a_row():
    named = {
        name
        for name, field in Settings.model_fields.items()
        if field.annotation is Path or re.search("url|path|file|folder|dir|home", name)
    }
    assert named == rows.SETTINGS.keys() | rows.OF_SERVERS


def test_every_option_of_an_address_that_names_a_path_has_a_row():
    libpq = {option.keyword.decode() for option in Conninfo.get_defaults()}
    known = libpq | _TLS.keys() | _OPTIONS.keys()
    named = {name for name in known if re.search("cert|key|crl|file|path|bundle", name)}
    assert named - rows.NOT_FILES == rows.OPTIONS.keys()


@pytest.fixture
def counted(services):
    """The numbers of rows that commands add."""

    def count() -> list[int]:
        with services.database.read() as session:
            return [session.scalar(select(func.count()).select_from(table)) for table in TABLES]

    return count


def check_message(result, path: Path, row: rows.Row) -> None:
    """One line that names the path, or a part of it, and no other, and has a remedy."""
    assert result.code in row.codes, result.err
    assert "Traceback" not in result.err
    *_, line = result.err.splitlines()
    assert line.startswith("Error: "), result.err
    named = shown(path)
    assert named in line
    assert "; " in line.replace(named, ""), "it does not say what to do"
    link = str(path.parent / "gone" / "away")
    for other in re.findall(r"(?<!\w)/[^;:,()'`\s]+", line):
        mine = other.startswith(named) or named.startswith(other) or other == link
        assert mine, f"{other} is blamed, too: {line}"


def prepare(genmill, services, folder: Path, row: rows.Row, job: str = "") -> None:
    """What a command needs on record before it comes to its path."""
    if "words" in row.words:
        (folder / "good.txt").write_text(rows.TEXT)
        assert genmill("dataset", "add", "words", str(folder / "good.txt")).code == 0
    if row.words[:2] == ("job", "export"):
        with services.database.write() as session:
            jobs.add_points(session, job, 1, {"loss": 0.5})
    if row.words[:3] == ("provenance", "audit", "--out"):
        assert genmill("provenance", "proof", job).code == 0  # so there is a head
    if row.words[:2] == ("model", "compare"):
        add_dataset(services)
        for seed in (1, 2):
            number = add_version(services, "pets")
            add_evaluation(services, f"pets:{number}", images(seed))


def run_with(genmill, row: rows.Row, **values: object):
    return genmill(*(word.format(**values) if "{" in word else word for word in row.words))


@pytest.mark.parametrize(("row", "fault"), cases(rows.INPUTS, faults.OF_INPUTS))
def test_an_input(genmill, services, counted, prose, tmp_path, plain_user, row, fault):
    prepare(genmill, services, tmp_path, row)
    before, files = counted(), faults.snapshot(tmp_path)
    place = faults.Place(tmp_path / "given", row.name, row.make, row.kind)
    with faults.put(fault, place) as path:
        result = run_with(genmill, row, path=path)
    check_message(result, path, row)
    assert "GENMILL_" not in result.err
    assert counted() == before
    assert files.items() <= faults.snapshot(tmp_path).items()


@pytest.mark.parametrize(("row", "fault"), cases(rows.TARGETS, faults.OF_TARGETS))
def test_a_target(genmill, services, picture_job, prose, tmp_path, plain_user, row, fault):
    prepare(genmill, services, tmp_path, row, picture_job)
    files = faults.snapshot(tmp_path)
    place = faults.Place(tmp_path / "given", row.name, row.make, row.kind)
    with faults.put(fault, place) as path:
        result = run_with(genmill, row, path=path, job=picture_job)
    check_message(result, path, row)
    assert "GENMILL_" not in result.err
    assert files.items() <= faults.snapshot(tmp_path).items()


@pytest.mark.parametrize(
    ("setting", "row", "fault"),
    [
        pytest.param(name, *case.values, id=f"{name}-{case.id}", marks=case.marks)
        for name, some in rows.SETTINGS.items()
        for case in cases({name: some}, IN_SETTINGS)
        if case.values[0] not in rows.ONLY_READ or case.values[1] not in WRITING
    ],
)
def test_a_setting(
    genmill, sqlite_home, picture_job, tmp_path, plain_user, monkeypatch, setting, row, fault
):
    if setting == "home":
        monkeypatch.delenv("GENMILL_DATABASE_URL", raising=False)
    (tmp_path / "good.txt").write_text(rows.TEXT)
    files = faults.snapshot(tmp_path)
    place = faults.Place(tmp_path / "given", row.name, row.make, row.kind)
    with faults.put(fault, place) as path:
        monkeypatch.setenv(f"GENMILL_{setting.upper()}", row.url.format(path=path))
        result = run_with(genmill, row, job=picture_job, text=tmp_path / "good.txt")
    check_message(result, path, row)
    assert files.items() <= faults.snapshot(tmp_path).items()


@pytest.mark.parametrize("words", ["status", "doctor --check home --check database --check store"])
@pytest.mark.parametrize("fault", IN_SETTINGS)
def test_a_home_that_cannot_be_used_is_told_by_those_who_look(
    genmill, sqlite_home, tmp_path, plain_user, monkeypatch, words, fault
):
    monkeypatch.delenv("GENMILL_DATABASE_URL", raising=False)
    place = faults.Place(tmp_path / "given", "h", rows.home, "folder")
    with faults.put(fault, place) as path:
        monkeypatch.setenv("GENMILL_HOME", str(path))
        told = genmill(*words.split())
    assert told.code == (0 if words == "status" else 1)
    assert shown(path) in told.out
    assert "Traceback" not in told.err


@pytest.mark.parametrize("option", rows.OPTIONS)
@pytest.mark.parametrize("fault", faults.OF_INPUTS)
def test_a_file_that_an_address_names(tmp_path, plain_user, option, fault):
    is_folder = option in rows.FOLDER_OPTIONS
    make = Path.mkdir if is_folder else Path.touch
    place = faults.Place(tmp_path / "given", "f", make, "folder" if is_folder else "file")
    url = rows.OPTIONS[option]
    with faults.put(fault, place) as path, pytest.raises(Refused) as refused:
        PARSERS[url.partition(":")[0]](url.format(path=path))
    assert option in str(refused.value) or "control character" in str(refused.value)
    assert str(tmp_path) not in str(refused.value).replace(str(path.parent / "gone"), "")
    assert refused.value.remedy


def test_a_file_of_settings_that_may_not_be_read_is_named(genmill, tmp_path, plain_user):
    (tmp_path / ".env").touch(mode=0)
    wrong = genmill("job", "list")
    assert (wrong.code, wrong.err) == (
        2,
        "Error: .env cannot be read: Permission denied; give this user access to it\n",
    )
