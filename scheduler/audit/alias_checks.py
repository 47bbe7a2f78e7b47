"""Every alias names the version that the changes of it have left it with."""

from collections import Counter, defaultdict

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
    """The version that each alias was given and that was not taken from it again.

    Entries name both versions of a change, so this needs no order: clocks may have been set back.
    """
    table = TABLES["promotions"]
    columns = (table.c.model_id, table.c.alias, table.c.version_id, table.c.previous_id)
    balances = defaultdict[tuple[str, str], Counter[str]](Counter)
    changes = select(*columns).where(table.c.outcome != "refused")
    for model, alias, given, taken in connection.execute(changes):
        balances[model, alias].update([given] if given else [])
        balances[model, alias].subtract([taken] if taken else [])
    return {key: version for key, some in balances.items() for version in +some}
