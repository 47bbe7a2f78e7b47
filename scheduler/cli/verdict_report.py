"""What `genmill provenance verify` prints for people."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from scheduler.output.render import (
    print_fields,
    print_table,
    print_text,
    show,
    to_count,
)
from worker.marks.base import REVOKED

Document = Mapping[str, Any]

IN_FULL = 5  # of several files, those that are told in full: the first that are not intact
LISTED = 20  # files that are listed
CHANGES = 6  # of a file
UNTOLD = ("record", "fingerprint")  # marks that are told as job, model, seed and nearest samples
COLUMNS = ("file", "verdict", "job", "sample", "model", "licence")
BESIDE = "beside"  # what is wrong with the files beside one


def print_report(found: Sequence[Document]) -> None:
    """Print one file in full; of several, a line each, and what is wrong with the first ones."""
    if len(found) == 1:
        _print_in_full(found[0])
        return
    if len(found) <= LISTED:
        rows = [{**each, "file": _name(each), BESIDE: "; ".join(each[BESIDE])} for each in found]
        print_table(rows, [*COLUMNS, *([BESIDE] if any(each[BESIDE] for each in found) else [])])
    for each in [each for each in found if not each["intact"] or each[BESIDE]][:IN_FULL]:
        click.echo()
        _print_in_full(each)
    print_text(f"\n{summary(found)}" if len(found) <= LISTED else summary(found))


def summary(found: Sequence[Document]) -> str:
    """How many files have which verdict."""
    counts = Counter(each["verdict"] for each in found)
    told = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
    if wrong := sum(bool(each[BESIDE]) for each in found):
        told += f"; {wrong:,} with a file beside it that is not its own"
    return f"{to_count(len(found), 'file')}: {told}" if len(found) > 1 else told


def _print_in_full(found: Document) -> None:
    print_text(f"{_name(found)}: {found['verdict']}")
    print_text(f"  {found['why']}")
    print_fields({f"  {name}": text for name, text in _fields(found) if text})


def _name(found: Document) -> str:
    return show(found["file"]) + (f", {show(found['place'])}" if found["place"] else "")


def _fields(found: Document) -> Iterator[tuple[str, str]]:
    if found["known_by"] is None and found["model"]:
        yield "claims", f"model {show(found['model'])}, seed {found['seed']}"
    elif found["known_by"]:
        yield from _origin(found)
    yield "licence", show(found["licence"])
    yield BESIDE, "; ".join(found[BESIDE])
    for number, change in enumerate(found["changes"][:CHANGES]):
        yield ("changed" if not number else f"changed {number + 1}"), _change(change)
    for mark in found["marks"]:
        silent = mark["state"] == "not applicable" and not mark["says"]
        if mark["state"] != "absent" and not silent and mark["mark"] not in UNTOLD:
            yield _plain(mark["mark"]), _reading(mark)
    yield "absent", ", ".join(_plain(m["mark"]) for m in found["marks"] if m["state"] == "absent")
    for number, near in enumerate(found["nearest"]):
        yield ("nearest" if not number else f"nearest {number + 1}"), _near(near)


def _origin(found: Document) -> Iterator[tuple[str, str]]:
    yield "job", show(found["job"])
    yield "sample", show(found["sample"])
    yield "model", show(found["model"])
    yield "data", show(found["dataset"])
    yield "seed", show(found["seed"])
    if found["also"]:
        yield "also", f"{to_count(len(found['also']), 'other job')} made the same bytes"


def _change(change: Document) -> str:
    if change["start"] is None:
        return f"{change['part']}: {change['what']}"
    last = change["stop"] - 1
    span = (
        f"byte {change['start']}" if last <= change["start"] else f"bytes {change['start']}-{last}"
    )
    return f"{change['part']}: {span} {_VERBS.get(change['what'], change['what'])}"


UNDERFLOW = "<1e-300"  # a p-value that is too small for a float
_VERBS = {"differs": "changed"}


def _reading(mark: Document) -> str:
    """The state of a mark and what it says; of a revoked key, that it was is told once."""
    state, left = mark["state"], set[str]()
    if mark["says"].get("trust") == REVOKED and not mark["says"].get("broken"):
        state, left = REVOKED, {"trust", "key"}
    says = ", ".join(
        f"{_plain(name)} {UNDERFLOW if name == 'p_value' and value == 0 else show(value)}"
        for name, value in mark["says"].items()
        if name not in left and not isinstance(value, Mapping) and value not in (None, "", [])
    )
    return "; ".join(part for part in (state, says, show(mark["why"])) if part)


def _near(near: Document) -> str:
    what = "a copy" if near["copy"] else "not a copy"
    return (
        f"job {near['job']}, sample {near['sample']}: fingerprints differ in {near['bits']} of "
        f"{near['of_bits']} bits, content by {near['difference']:g}; {what}"
    )


def _plain(name: str) -> str:
    return show(name).replace("_", " ")
