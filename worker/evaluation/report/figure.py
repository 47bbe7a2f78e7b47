"""Charts of an evaluation, drawn by matplotlib: numbers beside real data's, curves, sheets."""

import io
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from worker.evaluation.protocol import Number
from worker.evaluation.report.text_sheet import text_sheet
from worker.evaluation.request import Curves, Exhibit, Measured, Request

COLOURS = ("#1f5faa", "#d1570b")
GREY = "#57606a"
PANELS = 6  # of curves, at most


def draw_figure(request: Request, measured: Measured, path: Path) -> None:
    """Write the PNG: numbers, the curve of the loss, and the first sheets."""
    sheets = measured.exhibits[:2]  # made and held-out items
    figure = Figure(figsize=(12, 6 + 6 * bool(sheets)), layout="constrained")
    rows = figure.subfigures(1 + bool(sheets), 1, squeeze=False)[:, 0]
    numbers, loss = rows[0].subplots(1, 2, width_ratios=(1.25, 1))
    _draw_numbers(numbers, measured.numbers.found)
    _draw_loss(loss, request.curves)
    for sheet, axes in zip(sheets, rows[-1].subplots(1, 2) if sheets else (), strict=False):
        _draw_sheet(axes, sheet)
    protocol = request.protocol
    title = f"{request.name} on {protocol.dataset} {protocol.suffix}"
    figure.suptitle(title, fontsize=13)
    _save(figure, path)


def draw_curves(curves: Curves) -> Image.Image:
    """A panel for each quantity, with the training and validation curves in it."""
    names = _quantities(curves)[:PANELS]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    for place, name in enumerate(names, start=1):
        _draw_curve(figure.add_subplot(rows, columns, place), curves, name)
    data = io.BytesIO()
    _save(figure, data)
    with Image.open(data) as picture:
        return picture.convert("RGB")


def _quantities(curves: Curves) -> list[str]:
    """What the curves show, the loss first: `train/loss` and `validation/loss` are one."""
    found = dict.fromkeys(name.partition("/")[2] or name for name in sorted(curves))
    return sorted(found, key=lambda name: (name != "loss", name))


def _draw_numbers(axes: Axes, found: dict[str, Number]) -> None:
    """Each number as a multiple of real data's; its own value as text."""
    names = sorted(found, reverse=True)
    for place, number in enumerate(found[name] for name in names):
        real = f", real {number.real:.4g}" if number.real is not None else ""
        label = f"{number.value:.4g} [{number.low:.4g}, {number.high:.4g}]{real}"
        axes.text(1.02, place, label, transform=axes.get_yaxis_transform(), va="center", size=8)
        ratios = [_ratio(each, number.real) for each in (number.low, number.value, number.high)]
        if all(ratio is not None for ratio in ratios):
            low, value, high = (float(ratio or 0) for ratio in ratios)
            axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=2)
            axes.plot(value, place, "o", color=COLOURS[0], markersize=5)
    axes.axvline(1, color=GREY, linewidth=1, linestyle="--")
    _scale_ratios(axes)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(range(len(names)), names, size=9)
    axes.set_xlabel("as a multiple of real data's value (1: like real data)")
    axes.grid(axis="x", alpha=0.25)


def _scale_ratios(axes: Axes) -> None:
    """A logarithmic axis around 1, with plain numbers that do not overlap."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(low, 0.5), max(high, 2)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _ratio(value: float, real: float | None) -> float | None:
    """None where a logarithmic axis cannot show it."""
    return value / real if real and value / real > 1e-3 else None


def _draw_loss(axes: Axes, curves: Curves) -> None:
    names = _quantities(curves)
    if names:
        _draw_curve(axes, curves, names[0])
    else:
        axes.axis("off")
        axes.text(0.5, 0.5, "no training curves", ha="center", color=GREY)


def _draw_curve(axes: Axes, curves: Curves, name: str) -> None:
    lines = [each for each in sorted(curves) if (each.partition("/")[2] or each) == name]
    for line, colour in zip(lines, COLOURS * len(lines), strict=False):
        points = curves[line]
        style = "o-" if len(points) < 15 else "-"
        label = line.partition("/")[0]
        axes.plot(*zip(*points, strict=True), style, color=colour, markersize=3, label=label)
    axes.set_title(name, size=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _draw_sheet(axes: Axes, exhibit: Exhibit) -> None:
    picture = text_sheet(exhibit.texts) if exhibit.picture is None else exhibit.picture
    grey = picture.mode == "L"
    axes.imshow(np.asarray(picture), cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_title(exhibit.title, size=11)
    axes.axis("off")


def _save(figure: Figure, target: Path | io.BytesIO) -> None:
    figure.savefig(target, format="png", dpi=90, metadata={"Software": None})
