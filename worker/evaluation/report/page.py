"""The HTML page: everything inside it, styles and pictures too."""

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from worker.evaluation.protocol import Number
from worker.evaluation.request import Exhibit, Measured, Request
from worker.metrics.catalogue import METRICS

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem;
       padding: 0 1rem; color: #1b1f24; background: #fff }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.lead, figcaption, .note { color: #57606a } figure { margin: 0 }
table { border-collapse: collapse; width: 100% } th, td { padding: .3rem .6rem; text-align: left;
       border-bottom: 1px solid #d8dee4; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
code { font: 13px ui-monospace, monospace } img { max-width: 100%;
       border: 1px solid #d8dee4 } .pair img { image-rendering: pixelated; width: 100%;
       max-height: 34rem; object-fit: contain; object-position: left top }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem }
audio { width: 100%; height: 2rem }
pre { white-space: pre-wrap; background: #f6f8fa; padding: .7rem; margin: .2rem 0 }
@media (max-width: 45rem) { .pair { grid-template-columns: 1fr } }
"""

PNG, WAV = "image/png", "audio/wav"
BETTER = {"lower": "lower", "higher": "higher", "closer": "closer to real"}


def write_page(
    request: Request, measured: Measured, curves: Image.Image | None, path: Path
) -> None:
    """Write the page: numbers, sheets, curves, protocol."""
    parts = [
        _head(request),
        _table(request, measured),
        *_exhibits(measured.exhibits),
        _figure(Exhibit("Training curves", "", curves)) if curves else "",
        _protocol(request),
    ]
    title = escape(f"Evaluation of {request.name}")
    body = "\n".join(part for part in parts if part)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
        encoding="utf-8",
    )


def shown(value: float | None) -> str:
    """A number with four significant digits."""
    return "-" if value is None else f"{value:.4g}"


def _head(request: Request) -> str:
    protocol = request.protocol
    return (
        f"<h1>{escape(request.name)}</h1>\n"
        f'<p class="lead">A <b>{escape(request.family.name)}</b>, measured against split '
        f"<b>{protocol.split}</b> of <b>{escape(protocol.dataset)}</b> with {protocol.count:,} "
        f"samples. Only numbers of one protocol can be compared: "
        f"<code>{protocol.sha256[:12]}</code>.</p>"
    )


def _table(request: Request, measured: Measured) -> str:
    numbers = measured.numbers
    rows = [_row(name, number) for name, number in sorted(numbers.found.items())]
    heads = ("Number", "Value", "95% interval", "Real data", "n", "Better", "Meaning")
    cells = "".join(f"<th{_class(i)}>{head}</th>" for i, head in enumerate(heads))
    left_out = "".join(
        f"<li><code>{escape(name)}</code>: {escape(reason)}</li>"
        for name, reason in sorted(numbers.left_out.items())
    )
    return (
        f"<h2>Numbers</h2>\n<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody>"
        f'</table>\n<p class="note">A full name is the number&apos;s name and '
        f"<code>{escape(request.protocol.suffix)}</code>. <b>Real data</b> is the same number of "
        "real items in place of the samples, at the same size: a sample set that equals real "
        "data would have it. Intervals come from resampling the items; they do not hold the "
        "noise between two trainings.</p>"
        + (f'<p class="note">Left out:</p><ul class="note">{left_out}</ul>' if left_out else "")
    )


def _row(name: str, number: Number) -> str:
    cells = (
        f"<code>{name}</code>",
        shown(number.value),
        f"{shown(number.low)} to {shown(number.high)}",
        shown(number.real),
        f"{number.n:,}",
        BETTER[number.better],
        escape(METRICS[name].meaning),
    )
    return f"<tr>{''.join(f'<td{_class(i)}>{cell}</td>' for i, cell in enumerate(cells))}</tr>\n"


def _class(column: int) -> str:
    return ' class="n"' if 1 <= column <= 4 else ""


def _exhibits(exhibits: Sequence[Exhibit]) -> Iterator[str]:
    """Two in a row."""
    for first in range(0, len(exhibits), 2):
        yield f'<div class="pair">{"".join(map(_figure, exhibits[first : first + 2]))}</div>'


def _figure(exhibit: Exhibit) -> str:
    parts = [_picture(exhibit)]
    parts += [
        f'<figcaption>{escape(heading)}</figcaption><audio controls src="{_data_url(sound, WAV)}">'
        "</audio>"
        for heading, sound in exhibit.sounds
    ]
    parts += [
        f"<figcaption>{escape(heading)}</figcaption><pre>{escape(text)}</pre>"
        for heading, text in exhibit.texts
    ]
    return (
        f"<section><h2>{escape(exhibit.title)}</h2><figure>{''.join(parts)}"
        f"<figcaption>{escape(exhibit.note)}</figcaption></figure></section>"
    )


def _picture(exhibit: Exhibit) -> str:
    if exhibit.picture is None:
        return ""
    data = io.BytesIO()
    exhibit.picture.save(data, "PNG", optimize=True)
    return f'<img alt="{escape(exhibit.title)}" src="{_data_url(data.getvalue(), PNG)}">'


def _protocol(request: Request) -> str:
    rows = {**request.protocol.data, "sha256": request.protocol.sha256}
    if request.judge_metrics:
        rows["judge's metrics"] = request.judge_metrics
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(_plain(value))}</code></td></tr>"
        for name, value in rows.items()
    )
    return f"<h2>Protocol and judge</h2>\n<table><tbody>{cells}</tbody></table>"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return str(value)


def _data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
