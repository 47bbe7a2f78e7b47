"""Loss curves as a PNG with one panel per curve."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from worker.engine.checkpoints import Curves

WIDTH, HEIGHT = 720, 180  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 30, 30  # margins around its plot
INK, GRID, LINE = (40, 40, 40), (225, 225, 225), (31, 95, 170)

Points = Sequence[tuple[int, float]]


def draw_curves(curves: Curves, path: Path) -> None:
    """Plot each curve against the step, with its smallest and largest value at the axis."""
    panels = {name: points for name, points in sorted(curves.items()) if points}
    image = Image.new("RGB", (WIDTH, HEIGHT * max(1, len(panels))), "white")
    draw = ImageDraw.Draw(image)
    last = max((points[-1][0] for points in panels.values()), default=1)
    for index, (name, points) in enumerate(panels.items()):
        _panel(draw, name, points, last=max(last, 1), top=index * HEIGHT)
    image.save(path)


def _panel(draw: ImageDraw.ImageDraw, name: str, points: Points, *, last: int, top: int) -> None:
    font = ImageFont.load_default(13)
    low, high = min(value for _, value in points), max(value for _, value in points)
    box = (LEFT, top + TOP, WIDTH - RIGHT, top + HEIGHT - BOTTOM)
    draw.rectangle(box, outline=GRID)
    draw.text((LEFT, top + 8), name, fill=INK, font=font)
    draw.text((8, box[1] - 7), f"{high:.4g}", fill=INK, font=font)
    draw.text((8, box[3] - 9), f"{low:.4g}", fill=INK, font=font)
    draw.text((box[2], box[3] + 6), f"step {last}", fill=INK, font=font, anchor="ra")
    across = (box[2] - box[0]) / last  # pixels per step
    up = (box[3] - box[1]) / ((high - low) or 1)  # pixels per unit
    line = [(box[0] + step * across, box[3] - (value - low) * up) for step, value in points]
    if len(line) == 1:
        draw.circle(line[0], 2, fill=LINE)
    draw.line(line, fill=LINE, width=2)
