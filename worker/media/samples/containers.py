"""From samples to one local file: a WebDataset tar for images and sounds, JSON Lines for text.

Encoding runs in a thread beside the model, behind a bounded queue, so memory does not grow with the
number of samples. Bytes depend on the samples alone, so a sample has one digest however shards are
cut. A writer knows no store and no record: the caller puts the closed file where it belongs.
"""

import hashlib
import queue
import tarfile
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from db.errors import GenmillError, NonFinite, Refused, unknown
from worker.media.samples.record import Record, png_text, to_json, wav_info
from worker.media.samples.wav import from_floats, write_wav

QUEUE_SAMPLES = 64


@dataclass(frozen=True)
class SampleRecord:
    """One sample on its way to a file, with its `worker.media.samples.record.Origin.record`."""

    index: int
    output: npt.NDArray[Any] | str  # uint8 (H, W, C) image, float32 (T,) sound, or text
    record: Record


@dataclass(frozen=True)
class MemberInfo:
    """Where one sample lies: bytes `offset` to `offset + size` of the file, and their SHA-256."""

    sample: int
    name: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Written:
    """A closed file and its members, one a sample, in the order of writing."""

    path: Path
    media_type: str
    members: list[MemberInfo]


class Writer(ABC):
    """Writes samples into `path`. Left without `close()`, as on an error, it removes the file."""

    media_type: ClassVar[str]
    tail: ClassVar[bytes] = b""  # what ends a file

    def __init__(self, path: Path, sample_rate: int = 0) -> None:
        self.path = path
        self.sample_rate = sample_rate  # of sounds, in Hz
        self._members: list[MemberInfo] = []
        self._offset = 0
        self._error: BaseException | None = None
        self._closed = False
        self._file = path.open("wb")
        self._queue: queue.Queue[SampleRecord | None] = queue.Queue(QUEUE_SAMPLES)
        self._thread = threading.Thread(target=self._drain, name="writer", daemon=True)
        self._thread.start()

    def add(self, sample: SampleRecord) -> None:
        """Hand over a sample; waits while the queue is full, raises what failed in the thread."""
        self._check_open()
        if self._error is not None:
            raise self._error
        self._queue.put(sample)

    def close(self) -> Written:
        """Wait for the last sample, end the file, and say where each sample lies."""
        self._check_open()
        try:
            self._finish()
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        return Written(self.path, self.media_type, self._members)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._closed:
            self._stop()
            self._file.close()
            self.path.unlink(missing_ok=True)

    @abstractmethod
    def _write(self, sample: SampleRecord) -> None:
        """Encode one sample and append it."""

    def _check_open(self) -> None:
        if self._closed:
            raise GenmillError(f"the writer of {self.path.name} is closed")

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)

    def _member(self, sample: SampleRecord, name: str, data: bytes) -> None:
        """Note that `data`, which comes next in the file, is the sample."""
        digest = hashlib.sha256(data).hexdigest()
        self._members.append(MemberInfo(sample.index, name, self._offset, len(data), digest))

    def _finish(self) -> None:
        self._stop()
        with self._file:
            if self._error is not None:
                raise self._error
            self._append(self.tail)

    def _stop(self) -> None:
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _drain(self) -> None:
        while (sample := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep emptying the queue, or `add` would wait for ever on a full one
            try:
                self._write(sample)
            except BaseException as error:  # raised again in the caller's thread
                self._error = error


class Tar(Writer):
    """WebDataset: `000000017.png` followed by `000000017.json`, headers without times or owners."""

    media_type = "application/x-tar"
    tail = bytes(2 * tarfile.BLOCKSIZE)
    suffix: ClassVar[str]

    @abstractmethod
    def _encode(self, sample: SampleRecord) -> bytes:
        """A sample's file."""

    def _write(self, sample: SampleRecord) -> None:
        key = f"{sample.index:09d}"
        data = self._encode(sample)
        self._header(key + self.suffix, len(data))
        self._member(sample, key + self.suffix, data)
        self._content(data)
        text = to_json(sample.record).encode()
        self._header(f"{key}.json", len(text))
        self._content(text)

    def _header(self, name: str, size: int) -> None:
        # tarfile.TarFile keeps every member in memory, so only its header is used
        header = tarfile.TarInfo(name)
        header.size = size
        self._append(header.tobuf(tarfile.USTAR_FORMAT))

    def _content(self, data: bytes) -> None:
        self._append(data + bytes(-len(data) % tarfile.BLOCKSIZE))


class ImageTar(Tar):
    """A tar of pictures."""

    suffix = ".png"

    def _encode(self, sample: SampleRecord) -> bytes:
        return encode_png(sample.output, sample.record)


class SoundTar(Tar):
    """A tar of sounds."""

    suffix = ".wav"

    def _encode(self, sample: SampleRecord) -> bytes:
        return encode_wav(sample.output, self.sample_rate, sample.record)


class JsonLines(Writer):
    """One JSON object a line: the record with `text`. A member is its line without the break."""

    media_type = "application/jsonl"

    def _write(self, sample: SampleRecord) -> None:
        if not isinstance(sample.output, str):
            raise Refused(f"sample {sample.index} is {type(sample.output).__name__}, not text")
        line = to_json(sample.record | {"text": sample.output}).encode()
        self._member(sample, f"{sample.index:09d}.json", line)
        self._append(line + b"\n")


WRITERS: dict[str, type[Writer]] = {"image": ImageTar, "text": JsonLines, "audio": SoundTar}


def open_writer(media: str, path: Path, *, sample_rate: int = 0) -> Writer:
    """A writer for samples of `media` (image, text, audio) into the new file `path`."""
    try:
        return WRITERS[media](path, sample_rate)
    except KeyError:
        raise Refused(unknown("writer for", media, WRITERS)) from None


def encode_png(output: npt.NDArray[Any] | str, record: Record) -> bytes:
    """A PNG of a uint8 (H, W, 1 or 3) image with its record inside."""
    if isinstance(output, str) or output.dtype != np.uint8 or output.ndim != 3:
        shown = "text" if isinstance(output, str) else f"{output.dtype} {output.shape}"
        raise NonFinite(f"sample {record['index']} is {shown}, not a uint8 (H, W, C) image")
    height, width, channels = output.shape
    buffer = BytesIO()
    image = Image.fromarray(output[:, :, 0] if channels == 1 else output)
    image.save(buffer, "PNG", pnginfo=png_text(record, (width, height)))
    return buffer.getvalue()


def encode_wav(output: npt.NDArray[Any] | str, sample_rate: int, record: Record) -> bytes:
    """A WAV, 16-bit PCM, of a float32 (T,) sound in [-1, 1], with its record inside."""
    if isinstance(output, str) or output.dtype != np.float32 or output.ndim != 1:
        shown = "text" if isinstance(output, str) else f"{output.dtype} {output.shape}"
        raise NonFinite(f"sample {record['index']} is {shown}, not a float32 (T,) sound")
    return write_wav(from_floats(output), sample_rate, wav_info(record))
