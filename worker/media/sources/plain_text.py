"""Bytes as text: UTF-8, or UTF-16 and UTF-32 by their marks; others are guessed, but refused."""

import codecs
import io
import itertools
from collections.abc import Iterator
from typing import IO, Any, cast

from db.causes import Cause
from db.errors import BadInput
from worker.source_files import encodings

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
SAVE_AGAIN = "save it again, as UTF-8"
_SAMPLE = 1 << 16  # bytes that an encoding is guessed from
_SURE = 0.65  # plausibility of a guess by characters; below, languages decide
_OTHERS = ("cp1250", "iso8859_2", "cp1253", "cp1254", "cp1255", "cp1256", "euc_jp", "cp874")


class OtherEncoding(BadInput):
    """A text that is not UTF-8."""

    cause = Cause.WORK
    lasting = True


def decode_text(data: bytes) -> str:
    """As `decode_chunks`, of all bytes at once."""
    return "".join(decode_chunks(iter([data])))


def decode_chunks(chunks: Iterator[bytes], *, source: str = "") -> Iterator[str]:
    """Text that is UTF-8, or of the encoding that its byte order mark names; the mark is left out.

    Raises `OtherEncoding` for the first byte that is not; `source` names the file in it, if the
    caller does not.
    """
    head = next(chunks, b"")
    encoding = marked_encoding(head) or "UTF-8"
    decoder = codecs.getincrementaldecoder(encoding)()
    start, first = 0, True  # `start`: offset of the bytes that are not decoded yet
    for chunk in itertools.chain([head], chunks, [b""]):
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at, data = start + error.start, held + chunk
            where = f"{source}: " if source else ""
            raise OtherEncoding(
                f"{where}not {encoding}: byte 0x{data[error.start]:02x} at offset {at}",
                remedy=conversion(_sample(data[error.start :] if start else data, chunks)),
            ) from error
        start += len(held) + len(chunk) - len(decoder.getstate()[0])
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text


def conversion(data: bytes) -> str:
    """What to do with bytes that are not UTF-8."""
    guess = guess_encoding(data)
    return f"convert it; it looks like {guess}: iconv -f {guess} -t UTF-8"


def marked_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark names, but for UTF-8."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def as_utf8(file: IO[bytes]) -> io.BufferedReader:
    """A file from its beginning, recoded if a mark says that it is UTF-16 or UTF-32."""
    return io.BufferedReader(_Recoded(cast(io.BufferedIOBase, file)))


class _Recoded(io.RawIOBase):
    """The bytes of a file, as UTF-8 where a mark names another encoding; rewound by `seek(0)`."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file, self._at = file, 0
        self._begin()

    def _begin(self) -> None:
        head = self._file.read(4)
        self._encoding = marked_encoding(head)
        self._decoder = codecs.getincrementaldecoder(self._encoding or "UTF-8")()
        self._held = self._recode(head)

    def _recode(self, data: bytes) -> bytes:
        if self._encoding is None:
            return data
        try:
            return self._decoder.decode(data, final=not data).encode()
        except UnicodeError as error:
            raise OtherEncoding(f"not {self._encoding}: {error}", remedy=SAVE_AGAIN) from error

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        data = b"more"
        while not self._held and data:
            data = self._file.read1(len(buffer))
            self._held = self._recode(data)
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        self._at += size
        return size

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.RawIOBase`."""
        return self._file.seekable()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Go to the beginning, or stay."""
        if (place, whence) == (0, io.SEEK_SET):
            self._at = self._file.seek(0)
            self._begin()
        elif (place, whence) != (0, io.SEEK_CUR):
            raise io.UnsupportedOperation("only the beginning can be sought")
        return self._at


def _sample(begun: bytes, chunks: Iterator[bytes]) -> bytes:
    """What was read, and as much of the rest as a guess needs."""
    more = itertools.takewhile(lambda _: len(begun) < _SAMPLE, chunks)
    for chunk in more:
        begun += chunk
    return begun


def guess_encoding(data: bytes) -> str:
    """The probable encoding of text that is not UTF-8, by a name that iconv knows."""
    if marked := marked_encoding(data):
        return marked
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
