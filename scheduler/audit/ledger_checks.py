"""The ledger is whole: no leaf, node or head was changed, and it has every head that was given out.

The tree is built again from the leaves' texts. Where one of its hashes is not the one on record,
the audit goes on from that one, so that a change is told once, where it was made.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, func, select

from db.errors import BadRecord
from db.leaves import head_text, leaf_text
from db.merkle import EMPTY_ROOT, Place, leaf_hash, node_hash
from scheduler.audit.alias_checks import aliases_are_as_told
from scheduler.audit.history import Row
from scheduler.audit.leaf_checks import rows_are_as_told
from scheduler.audit.readable import as_far_as_readable, readable
from scheduler.audit.record import TABLES
from scheduler.audit.violations import Violation, Violations
from scheduler.results.heads import Head, is_signature

LEAVES_AT_ONCE, HEADS_AT_ONCE = 1024, 500
SHOWN = 20  # of leaves that are missing or were changed
MOST_MISSING = 1 << 20  # leaves before one; more would take minutes to step over


def ledger_is_whole(connection: Connection, outside: Sequence[Head] = ()) -> Violations:
    """Every violation of the ledger; `outside` are heads that were kept elsewhere."""
    tree = _Tree(connection, {head.size for head in outside})
    yield from as_far_as_readable(tree.check())
    yield from as_far_as_readable(_heads(connection, tree))
    for head in outside:
        yield from as_far_as_readable(_outside_head(connection, head, tree))
    yield from as_far_as_readable(rows_are_as_told(connection))
    yield from as_far_as_readable(aliases_are_as_told(connection))


class _Tree:
    """The tree as it is built again: its size, and its root wherever a head was signed."""

    def __init__(self, connection: Connection, sizes: set[int]) -> None:
        self._connection = connection
        self.size = 0
        self.is_built = False  # of all leaves on record
        self.roots = {0: EMPTY_ROOT}
        self._sizes = sizes | set(connection.scalars(select(TABLES["ledger_heads"].c.size)))
        self._peaks: list[bytes] = []
        self._nodes: dict[Place, bytes] = {}

    def check(self) -> Violations:
        """Build it, and tell where it is not as it is on record."""
        found = 0
        for page in self._pages():
            self._nodes = dict(_nodes(self._connection, self.size, page[-1]["idx"] + 1))
            for leaf in page:
                if leaf["idx"] - self.size > MOST_MISSING:
                    yield _of(leaf, "is none: before it, over a million are missing")
                    return
                for violation in self._add(leaf):
                    found += 1
                    if found <= SHOWN:
                        yield violation
        self.is_built = True
        if found > SHOWN:
            yield Violation(f"{found - SHOWN} more leaves or nodes of the ledger were changed")
        yield from self._counts()

    def _pages(self) -> Iterator[Sequence[Row]]:
        leaves = TABLES["ledger_leaves"]
        columns = (leaves.c.idx, leaves.c.kind, leaves.c.subject, leaves.c.text, leaves.c.leaf_hash)
        last = -1
        while True:
            page = select(*columns).where(leaves.c.idx > last).order_by(leaves.c.idx)
            rows = self._connection.execute(page.limit(LEAVES_AT_ONCE)).mappings().all()
            if rows:
                yield rows
            if len(rows) < LEAVES_AT_ONCE:
                return
            last = rows[-1]["idx"]

    def _add(self, leaf: Row) -> Violations:
        index = leaf["idx"]
        if index != self.size:
            yield Violation(f"leaves {self.size} to {index - 1} of the ledger are missing")
            self._skip_to(index)
        if _hash(leaf) != leaf["leaf_hash"]:
            yield _of(leaf, "was edited: its hash is not that of its text")
        yield from self._append(_bytes(leaf["leaf_hash"]))

    def _append(self, node: bytes) -> Violations:
        level, number = 0, self.size
        while number & 1:
            node = node_hash(self._peaks.pop(), node)
            level, number = level + 1, number >> 1
            on_record = self._nodes.get(Place(level, number))
            if on_record != node:
                first, last = number << level, (number + 1 << level) - 1
                how = "is missing" if on_record is None else "is not the one of its leaves"
                yield Violation(f"the ledger's hash of leaves {first} to {last} {how}")
            node = on_record or node
        self._peaks.append(node)
        self.size += 1
        if self.size in self._sizes:
            self.roots[self.size] = self._root()

    def _root(self) -> bytes:
        *others, root = self._peaks
        for other in reversed(others):
            root = node_hash(other, root)
        return root

    def _skip_to(self, index: int) -> None:
        """Go on after missing leaves, by the hashes on record above them."""
        first = self.size
        while self.size < index:
            list(self._append(b""))
        for size in range(first, index):
            self.roots.pop(size + 1, None)  # nobody knows them any more

    def _counts(self) -> Violations:
        ledger, nodes, leaves = (TABLES[f"ledger{end}"] for end in ("", "_nodes", "_leaves"))
        outside = select(func.count()).select_from(leaves).where(leaves.c.idx < 0)
        if aside := self._connection.scalar(outside):
            yield Violation(f"leaves of the ledger with a place below 0, so not in it: {aside}")
        told = self._connection.scalar(select(ledger.c.size)) or 0
        if told != self.size:
            yield Violation(f"the ledger has {self.size} leaves, and says that it has {told}")
        count = self._connection.scalar(select(func.count()).select_from(nodes)) or 0
        if count > sum(self.size >> level for level in range(1, self.size.bit_length() + 1)):
            yield Violation("the ledger has hashes of more leaves than it has")


def _nodes(connection: Connection, start: int, stop: int) -> Iterator[tuple[Place, bytes]]:
    """The nodes on record that leaves `start` to `stop` complete."""
    table = TABLES["ledger_nodes"]
    for level in range(1, stop.bit_length() + 1):
        first, last = start >> level, (stop >> level) - 1
        if first <= last:
            wanted = (table.c.level == level, table.c.number.between(first, last))
            rows = connection.execute(select(table.c.number, table.c.hash).where(*wanted))
            yield from ((Place(level, number), _bytes(found)) for number, found in rows)


def _heads(connection: Connection, tree: _Tree) -> Violations:
    heads, keys = TABLES["ledger_heads"], TABLES["keys"]
    of_heads = select(keys.c.id, keys.c.public).where(keys.c.purpose == "head")
    public = {row.id: row.public or "" for row in connection.execute(of_heads)}
    ledger_id = connection.scalar(select(TABLES["ledger"].c.id)) or ""

    def read(sizes: Sequence[int]) -> Sequence[Row]:
        wanted = select(heads).where(heads.c.size.in_(sizes)).order_by(heads.c.size)
        return connection.execute(wanted).mappings().all()

    sizes = connection.scalars(select(heads.c.size).order_by(heads.c.size)).all()
    pages = (sizes[at : at + HEADS_AT_ONCE] for at in range(0, len(sizes), HEADS_AT_ONCE))
    for some, found in chain.from_iterable(readable(read, page) for page in pages):
        if isinstance(found, BadRecord):
            yield Violation(f"the ledger's head of {some[0]} leaves was changed: {found.message}")
            continue
        for row in found:
            yield from _head(row, public.get(row["key_id"]), ledger_id, tree)


def _head(row: Row, public: str | None, ledger_id: str, tree: _Tree) -> Violations:
    name = f"the ledger's head of {row['size']} leaves"
    root = _bytes(row["root"])
    if public is None:
        yield Violation(f"{name} is signed by {row['key_id']}, which is no key for heads on record")
    elif not is_signature(
        public, row["signature"], head_text(ledger_id, row["size"], root, row["at"])
    ):
        yield Violation(
            f"{name} is not signed by its key {row['key_id']}: it was changed, or signed with "
            "another key"
        )
    yield from _root_fits(name, row["size"], root, tree)


def _outside_head(connection: Connection, head: Head, tree: _Tree) -> Violations:
    name = f"the head of {head.size} leaves that was kept outside, signed {head.at}"
    keys = TABLES["keys"]
    of_key = select(keys.c.public).where(keys.c.id == head.key, keys.c.purpose == "head")
    if connection.scalar(of_key) != head.public_key:
        yield Violation(f"{name}, is of another key {head.key} than the one on record")
    ledger_id = connection.scalar(select(TABLES["ledger"].c.id)) or ""
    if head_text(ledger_id, head.size, head.root, head.at) != head.text:
        yield Violation(f"{name}, is of another ledger, {head.origin}")
        return
    yield from _root_fits(name, head.size, head.root, tree)


def _root_fits(name: str, size: int, root: bytes, tree: _Tree) -> Violations:
    if tree.is_built and size > tree.size:
        yield Violation(f"{name}: the ledger was cut to {tree.size} leaves")
    elif size in tree.roots and tree.roots[size] != root:
        yield Violation(f"{name}: these leaves have another root, so one of them was changed")


def _hash(leaf: Row) -> str:
    """The hash of a leaf's text; nothing if its columns say something else than the text."""
    start = leaf_text(leaf["kind"], leaf["subject"], {})
    text: str = leaf["text"]
    fits = text.endswith(start.removeprefix('{"data":{}'))
    return leaf_hash(text.encode()).hex() if fits else ""


def _bytes(digest: str) -> bytes:
    """The bytes of a digest; none if somebody has written something else."""
    try:
        return bytes.fromhex(digest)
    except ValueError:
        return b""


def _of(leaf: Row, what: str) -> Violation:
    about: Any = f"leaf {leaf['idx']} of the ledger, of {leaf['kind']} {leaf['subject']},"
    return Violation(f"{about} {what}")
