"""What was found of marked samples and their copies, as rows and as a table for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WHOLE, STRANGERS = "as downloaded", "strangers"
PRESENT = "present"
VERDICTS = ("intact", "changed", "unproven", "not ours")

Document = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What was found of some files of one kind."""

    model: str
    profile: str
    files: str
    count: int
    verdicts: Mapping[str, int]
    ours: int  # taken for ours, whole or changed
    right: int  # that named the job and the sample that they were made from
    marks: Mapping[str, Mapping[str, int]]  # by mark: the states that it was read in
    lowest: Mapping[str, float]  # the lowest p-value of each watermark


def row_of(
    named: tuple[str, str, str], job: str, files: Sequence[Path], found: Sequence[Document]
) -> Row:
    """Count what was found of files, each made of the sample of its number of a job, if of any."""
    marks: dict[str, Counter[str]] = {}
    lowest: dict[str, float] = {}
    for mark in (mark for each in found for mark in each["marks"]):
        marks.setdefault(mark["mark"], Counter())[mark["state"]] += 1
        if (chance := mark["says"].get("p_value")) is not None:
            lowest[mark["mark"]] = min(chance, lowest.get(mark["mark"], 1.0))
    right = sum(
        each["ours"] is True
        and job in {each["job"], *each["also"]}
        and each["sample"] == int(path.stem)
        for path, each in zip(files, found, strict=True)
    )
    return Row(
        *named,
        count=len(found),
        verdicts=dict(Counter(each["verdict"] for each in found)),
        ours=sum(each["ours"] is True for each in found),
        right=right,
        marks={name: dict(states) for name, states in sorted(marks.items())},
        lowest=lowest,
    )


def table(models: Mapping[str, Sequence[Row]], version: str) -> str:
    """The rows of all models as Markdown, each with what its files are and what its marks say."""
    parts = [f"# What marks survive\n\nMeasured by Genmill {version}.\n", _LEGEND]
    parts += [_section(name, rows) for name, rows in models.items()]
    return "\n".join(parts)


_LEGEND = """For each model and profile, 200 samples were made through the queue, downloaded and
verified by `genmill provenance verify`, then changed. *Right* are files whose job and number were
named.
"""


def _section(name: str, rows: Sequence[Row]) -> str:
    own = [row for row in rows if row.profile != STRANGERS]
    profiles = list(dict.fromkeys(row.profile for row in own))
    files = list(dict.fromkeys(row.files for row in own))
    by_place = {(row.files, row.profile): row for row in own}
    lines = [f"## {name}\n", _line("files", *profiles), _line(*["---"] * (len(profiles) + 1))]
    lines += [_line(each, *(_told(by_place[each, one]) for one in profiles)) for each in files]
    for profile in profiles:
        lines += _marks([by_place[each, profile] for each in files])
    lines += [_strange(row) for row in rows if row.profile == STRANGERS]
    return "\n".join(lines) + "\n"


def _told(row: Row) -> str:
    found = (f"{row.verdicts[each]} {each}" for each in VERDICTS if row.verdicts.get(each))
    return f"{', '.join(found)}; {row.right} right"


def _marks(rows: Sequence[Row]) -> list[str]:
    """How many files each mark was present in, of those that the samples had at all."""
    names = [name for name, states in rows[0].marks.items() if states.get(PRESENT)]
    if not names:
        return []
    head = [f"\nPresent in the files of `{rows[0].profile}`:\n", _line("files", *names)]
    head.append(_line(*["---"] * (len(names) + 1)))
    return head + [
        _line(row.files, *(str(row.marks.get(each, {}).get(PRESENT, 0)) for each in names))
        for row in rows
    ]


def _strange(row: Row) -> str:
    """What was found of files that no model made."""
    present = {name: states.get(PRESENT, 0) for name, states in row.marks.items()}
    told = [
        f"`{name}` present in {present[name]}, lowest p {chance:.2g}"
        for name, chance in sorted(row.lowest.items())
    ]
    others = [
        f"`{name}` present in {n}" for name, n in present.items() if n and name not in row.lowest
    ]
    return f"\n{row.files}: {row.ours} taken for ours; {'; '.join(told + others)}."


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
