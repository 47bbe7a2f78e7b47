"""Bytes as text: UTF-8, or a refusal that says which encoding they probably are in."""

import codecs
import itertools
from collections.abc import Iterator

from db.errors import BadInput
from worker.source_files import encodings

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SAMPLE = 1 << 16  # bytes that an encoding is guessed from
_SURE = 0.65  # plausibility of a guess by characters; below, languages decide
_OTHERS = ("cp1250", "iso8859_2", "cp1253", "cp1254", "cp1255", "cp1256", "euc_jp", "cp874")


def decode_text(data: bytes) -> str:
    """UTF-8 as text, without a byte order mark; `BadInput` if it is not UTF-8."""
    return "".join(decode_utf8(iter([data])))


def decode_utf8(chunks: Iterator[bytes], *, source: str = "") -> Iterator[str]:
    """UTF-8 as text, without a byte order mark; `BadInput` for the first byte that is not UTF-8.

    `source` names the file in the error, if the caller does not.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, first = 0, True  # `start`: offset of the bytes that are not decoded yet
    for chunk in itertools.chain(chunks, [b""]):
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at, data = start + error.start, held + chunk
            guess = guess_encoding(_sample(data[error.start :] if start else data, chunks))
            where = f"{source}: " if source else ""
            raise BadInput(
                f"{where}not UTF-8: byte 0x{data[error.start]:02x} at offset {at}",
                remedy=f"convert it; it looks like {guess}: iconv -f {guess} -t UTF-8",
            ) from error
        start += len(held) + len(chunk) - len(decoder.getstate()[0])
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text


def _sample(begun: bytes, chunks: Iterator[bytes]) -> bytes:
    """What was read, and as much of the rest as a guess needs."""
    more = itertools.takewhile(lambda _: len(begun) < _SAMPLE, chunks)
    for chunk in more:
        begun += chunk
    return begun


def guess_encoding(data: bytes) -> str:
    """The probable encoding of text that is not UTF-8, by a name that iconv knows."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return name
    sample = data[:_SAMPLE].rpartition(b"\n")[0] if len(data) > _SAMPLE else data
    if zeros := sample.count(0):
        return "UTF-16LE" if sample[1::2].count(0) * 2 > zeros else "UTF-16BE"
    guess = encodings.guess_encoding([sample])
    if encodings.plausibility(sample, guess) < _SURE:
        guess = _by_language(sample) or guess
    return guess.upper().replace("_", "-").replace("CP125", "WINDOWS-125")


def _by_language(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes  # noqa: PLC0415 - slow to load, and rarely needed

    best = from_bytes(sample, cp_isolation=[*encodings.ENCODINGS, *_OTHERS]).best()
    return best.encoding if best else None
