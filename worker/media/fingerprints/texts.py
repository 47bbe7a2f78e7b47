"""Fingerprints of texts, and how far a text is from being a part of another.

One bit of each of 128 values of MinHash over the text's shingles (b-bit minwise hashing, Li and
König 2010): two texts that share none differ in half of the bits, wherever a passage stands. So
other order, other case and other spacing count for nothing.
"""

from codecs import getincrementaldecoder
from collections.abc import Iterable

import numpy as np

from db.errors import BadInput
from worker.cleaning.alike.texts import SIMILARITY, Shingles, shingles_of
from worker.media.fingerprints.bits import BITS, Fingerprints, pack
from worker.media.samples.record import parse_record

FEWEST = 20  # shingles of a text; a shorter one has no fingerprint
MOST = 1 << 20  # bytes of a file that are looked at


def of_texts(texts: Iterable[str]) -> Fingerprints:
    """A fingerprint of each text."""
    from datasketch import MinHash  # noqa: PLC0415 - SciPy comes with it

    empty = MinHash(num_perm=BITS, hashfunc=int, seed=1)
    rows = []
    for text in texts:
        sketch, shingles = empty.copy(), _shingles(text)
        sketch.update_batch(shingles)
        rows.append((sketch.hashvalues & 1) * (len(shingles) >= FEWEST))
    return pack(np.array(rows, bool).reshape(-1, BITS))


def of_text_file(data: bytes) -> Fingerprints:
    """That of a text, plain or in a sample. Raises `BadInput`."""
    return of_texts([read_text(data)])


def part_distance(sample: str, copy: str) -> float:
    """How far a text is from being a part of another; 1 is that of near-duplicates."""
    one, other = _shingles(sample), _shingles(copy)
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return (1 - shared / min(len(one), len(other))) / (1 - SIMILARITY)


def read_text(data: bytes) -> str:
    """The text of a sample, or of a file of text alone. Raises `BadInput` for other files."""
    decoder = getincrementaldecoder("utf-8-sig")()
    try:
        text = decoder.decode(data[:MOST], final=len(data) <= MOST)
    except UnicodeDecodeError as error:
        raise BadInput(f"not text: {error}") from None
    if "\0" in text or not text.strip():
        raise BadInput("not text: it is empty, or has a NUL in it")
    return _text_inside(text) if text.lstrip().startswith("{") else text


def _text_inside(line: str) -> str:
    """The text of a sample, which is its record too; the whole line if it is none."""
    try:
        text = parse_record(line, "the text").get("text")
    except BadInput:
        return line
    return text if isinstance(text, str) and text else line


def _shingles(text: str) -> Shingles:
    return shingles_of({"text": text})
