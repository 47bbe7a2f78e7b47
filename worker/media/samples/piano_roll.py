"""Pieces of music as pictures: time to the right, pitch upwards, a bar for each note."""

from PIL import Image, ImageDraw

from worker.music.notes import Piece

WIDTH, HEIGHT = 480, 270  # pixels
MARGIN = 12
LEAST_PITCHES = 24  # two octaves, so that a few notes are not drawn as blocks
PAPER, LINE, NOTE = (24, 24, 40), (44, 44, 66), (252, 183, 97)


def piano_roll(piece: Piece) -> Image.Image:
    """A picture of a piece that has notes."""
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    pitches = [note.pitch for note in piece.notes]
    span = max(max(pitches) - min(pitches) + 1, LEAST_PITCHES)
    bottom = (max(pitches) + min(pitches) - span + 1) // 2  # the lowest pitch on the picture
    row, step = (HEIGHT - 2 * MARGIN) / span, (WIDTH - 2 * MARGIN) / piece.length
    for pitch in range(bottom, bottom + span):
        if pitch % 12 == 0:  # every C
            y = HEIGHT - MARGIN - (pitch - bottom) * row
            draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=LINE)
    for note in piece.notes:
        left, top = MARGIN + note.start * step, HEIGHT - MARGIN - (note.pitch - bottom + 1) * row
        right = max(left + note.length * step - 1, left + 1)
        draw.rounded_rectangle((left, top, right, top + max(row - 1, 2)), 2, fill=NOTE)
    return image
