"""The rows of a run as a Markdown table, for the page of costs."""

from collections.abc import Iterable, Mapping
from typing import Any

HEAD = "| row | ours | baseline | unit | ratio | spread | bound | |\n" + "| --- " * 8 + "|"


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """A table of rows as `BENCH_JSON` holds them."""
    return "\n".join([HEAD, *map(_line, rows)])


def _line(row: Mapping[str, Any]) -> str:
    least, most = row.get("at_least"), row.get("at_most")
    kept = (least is None or row["ratio"] >= least) and (most is None or row["ratio"] <= most)
    bound = f"≥ {least:g}" if least is not None else f"≤ {most:g}"
    low, high = row.get("spread") or (row["ratio"], row["ratio"])
    cells = [
        row["name"],
        number(row["ours"]),
        number(row["baseline"]),
        row["unit"],
        f"{row['ratio']:.2f}",
        f"{low:.2f} to {high:.2f}",
        bound,
        "" if kept else "missed",
    ]
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Three significant digits, and thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
