"""Every alias names the version that the last change of it gave it."""

from sqlalchemy import Connection, select

from scheduler.audit.record import TABLES
from scheduler.audit.violations import Violation, Violations

Named = dict[tuple[str, str], str]  # by the ids of models and the names of aliases


def aliases_are_as_told(connection: Connection) -> Violations:
    """Every alias that was moved, made or deleted without an entry in its model's history.

    The entries are in the ledger, so it tells if one of them was changed.
    """
    now, told = _aliases(connection), _told(connection)
    for key in sorted(now.keys() | told.keys()):
        if now.get(key) != told.get(key):
            model, alias = key
            has, had = (each.get(key, "no version") for each in (now, told))
            yield Violation(f"alias {alias} of model {model} names {has}, and by its history {had}")


def _aliases(connection: Connection) -> Named:
    table = TABLES["aliases"]
    rows = connection.execute(select(table.c.model_id, table.c.alias, table.c.version_id))
    return {(model, alias): version for model, alias, version in rows}


def _told(connection: Connection) -> Named:
    """The version that each alias was given last, unless the alias was removed."""
    table = TABLES["promotions"]
    columns = (table.c.model_id, table.c.alias, table.c.version_id)
    changes = select(*columns).where(table.c.outcome != "refused").order_by(table.c.at, table.c.id)
    last = {(model, alias): version for model, alias, version in connection.execute(changes)}
    return {key: version for key, version in last.items() if version is not None}
