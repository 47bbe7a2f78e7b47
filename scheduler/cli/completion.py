"""Completion of names and ids by the shell: quick, silent whatever is wrong, and without a trace.

What a parameter names follows from its name, or from the noun of its command.
"""

import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PATIENCE_S = 2.0  # a service that takes longer completes nothing
NEWEST = 500  # jobs and batches

Found = Iterator[tuple[str, str]]  # a name or id, and what to say of it
Find = Callable[["Session", str], Found]

# nouns by the names of parameters; the others of `_OF_NOUN` name what their command's noun says
_NOUNS = {
    **dict.fromkeys(("id", "ids", "job", "jobs", "before", "what"), "job"),
    **dict.fromkeys(("model", "models", "against"), "model"),
    **dict.fromkeys(("dataset", "datasets", "evaluate_on"), "dataset"),
    **dict.fromkeys(("target", "publish"), "target"),
    **{name: name for name in ("family", "schedule", "template", "batch", "worker")},
}
_OF_NOUN = {"name", "names", "reference", "references", "one", "other", "first", "second"}


def add_completions(command: click.Command) -> None:
    """Have the parameters of a command, and of those below it, complete what they name."""
    for noun, leaf in _leaves(command):
        for param in leaf.params:
            if named := noun_of(param, noun):
                # at each declaration, where Click has a place for it, it would be forgotten at some
                param.shell_complete = partial(_complete, named)  # type: ignore[method-assign] # as above


def noun_of(param: click.Parameter, noun: str) -> str | None:
    """What a parameter of a command of this noun names, if anything that can be completed."""
    if isinstance(param.type, click.Path | click.Choice):
        return None
    if (param.metavar or "").startswith("MODEL"):
        return "model"
    named = noun if param.name in _OF_NOUN else _NOUNS.get(param.name)
    return named if named in _FINDERS else None


def _leaves(command: click.Command, noun: str = "") -> Iterator[tuple[str, click.Command]]:
    """The commands that are not groups, with the noun that each belongs to."""
    if not isinstance(command, click.Group):
        yield noun or str(command.name), command
        return
    for each in command.commands.values():
        yield from _leaves(each, str(command.name))


def _complete(noun: str, context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    found: list[tuple[str, str]] = []

    def look() -> None:
        with suppress(Exception):
            found.extend(_FINDERS[noun](incomplete))

    before = logging.root.manager.disable
    logging.disable()
    try:
        with redirect_stderr(io.StringIO()):
            search = threading.Thread(target=look, daemon=True)
            search.start()
            search.join(PATIENCE_S)
    finally:
        logging.disable(before)
    given = _given(context)
    return [
        CompletionItem(value, help=about or None)
        for value, about in list(found)
        if value.startswith(incomplete) and value not in given
    ]


def _given(context: click.Context) -> set[str]:
    """The arguments that are there already."""
    values = context.params.values()
    return {each for value in values if isinstance(value, tuple) for each in value}


def _from_record(find: Find) -> Callable[[str], Found]:
    """A search of the record, which is not created for it."""

    def search(incomplete: str) -> Found:
        with _open_record() as session:
            yield from find(session, incomplete)

    return search


@contextmanager
def _open_record() -> Iterator["Session"]:
    from db.database_url import parse_url
    from db.errors import NotFound
    from db.path_errors import is_missing
    from worker.environment import database_url
    from worker.services import open_services

    services = open_services()
    url = parse_url(database_url() or services.settings.database)
    if url.get_backend_name() == "sqlite" and is_missing(Path(str(url.database))):
        raise NotFound("no database yet")
    try:
        with services.database.read() as session:
            yield session
    finally:
        services.close()


def _jobs(session: "Session", incomplete: str) -> Found:
    from db import jobs

    for job in jobs.listing(session, limit=NEWEST):
        yield job.id, " ".join(filter(None, (job.kind, job.model, job.status)))
    yield from _batches(session, incomplete)


def _batches(session: "Session", _: str) -> Found:
    from db import batches

    for batch in batches.newest(session, NEWEST):
        yield batch.id, f"batch of {batch.size} jobs"


def _models(session: "Session", incomplete: str) -> Found:
    """Names; after a name with `:` or `@`, its versions and aliases."""
    from db import models
    from db.registry import Reference

    name = Reference.parse(incomplete).name
    for model in models.listing(session):
        yield model.name, model.family
        if name != incomplete and model.name == name:
            for each in models.versions(session, model):
                yield f"{name}:{each.number}", ""
            for alias, number in models.aliases(session, model).items():
                yield f"{name}@{alias}", f"version {number}"


def _datasets(session: "Session", incomplete: str) -> Found:
    """Names; after a name with `:`, its versions."""
    from db import datasets
    from db.registry import Reference

    name = Reference.parse(incomplete).name
    for dataset in datasets.listing(session):
        yield dataset.name, ""
        if ":" in incomplete and dataset.name == name:
            for each in datasets.versions(session, dataset):
                yield f"{name}:{each.number}", each.kind


def _schedules(session: "Session", _: str) -> Found:
    from db import schedules

    yield from ((each.name, each.cron) for each in schedules.listing(session))


def _targets(session: "Session", _: str) -> Found:
    from db import targets

    yield from ((each.name, each.kind) for each in targets.listing(session))


def _workers(session: "Session", _: str) -> Found:
    from db import workers

    yield from ((each.boot_id, f"{each.host} {each.device}") for each in workers.live(session))


def _keys(session: "Session", _: str) -> Found:
    from db import keys

    yield from ((each.id, f"{each.purpose} {each.tenant}") for each in keys.listing(session))


def _families(_: str) -> Found:
    from worker.families import families

    yield from ((each.name, each.title) for each in families().values())


def _templates(_: str) -> Found:
    from scheduler.submission.prompts import templates

    yield from ((each.name, "") for each in templates())


def _checks(_: str) -> Found:
    from scheduler.machine.doctor import CHECKS

    yield from ((name, "") for name in CHECKS)


_FINDERS: dict[str, Callable[[str], Found]] = {
    "job": _from_record(_jobs),
    "batch": _from_record(_batches),
    "model": _from_record(_models),
    "dataset": _from_record(_datasets),
    "schedule": _from_record(_schedules),
    "target": _from_record(_targets),
    "worker": _from_record(_workers),
    "key": _from_record(_keys),
    "family": _families,
    "template": _templates,
    "doctor": _checks,
}
