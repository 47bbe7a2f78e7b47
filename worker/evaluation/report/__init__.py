"""The report of an evaluation, for people: one HTML page that needs no network, and one PNG."""

from pathlib import Path

from worker.evaluation.report.figure import draw_curves, draw_figure
from worker.evaluation.report.page import write_page
from worker.evaluation.request import Measured, Request

HTML, PNG = "report.html", "report.png"


def write_report(request: Request, measured: Measured) -> list[tuple[Path, str]]:
    """Write both into the request's folder; return paths and media types."""
    page, figure = request.folder / HTML, request.folder / PNG
    draw_figure(request, measured, figure)
    curves = draw_curves(request.curves) if request.curves else None
    write_page(request, measured, curves, page)
    return [(page, "text/html"), (figure, "image/png")]
