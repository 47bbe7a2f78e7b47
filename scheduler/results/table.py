"""Samples as a Parquet table: a row each, its bytes or text beside the columns of its record.

Pictures and sounds are a structure of `bytes` and `path`, which the library `datasets` shows as
what they are. Rows are written in groups, so that memory stays flat however many there are.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from scheduler.results.objects import StoredObject
from scheduler.results.sinks import Sink
from scheduler.results.unpack import Sample
from worker.files import open_no_link
from worker.media.base import Medium
from worker.media.samples.parquet import load_pyarrow
from worker.media.samples.record import Record

GROUP_ROWS = 1000
GROUP_BYTES = 16 << 20  # of samples
FIRST = "text"  # the content of a record that has one
OWN = ("job", "sha256")  # columns beside those of the record


class Table(Sink):
    """A Parquet file, which is begun anew by each download."""

    def __init__(self, folder: Path, name: str, medium: Medium) -> None:
        super().__init__(folder, name)
        self._medium = medium
        self._rows: list[dict[str, Any]] = []
        self._size = 0
        self._file: BinaryIO | None = None
        self._writer: Any = None
        self._arrow, self._parquet = load_pyarrow("choose another format")

    def write(self, each: StoredObject, samples: Iterable[Sample]) -> int:
        """See `Sink.write`."""
        written = 0
        for entry, data, line in samples:
            row = json.loads(line) | {"job": each.artifact.job_id, "sha256": entry.sha256}
            if self._medium.feature is not None:
                path = f"{entry.sample:09d}{self._medium.suffix}"
                row[self._medium.feature.lower()] = {"bytes": data, "path": path}
            self._rows.append(row)
            self._size += len(data)
            if len(self._rows) >= GROUP_ROWS or self._size >= GROUP_BYTES:
                self._flush()
            written += 1
        return written

    def close(self) -> None:
        """Write the last rows and the end of the file, and give it its name."""
        if self._rows:
            self._flush()
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._file.close()
            self._writer = None
        super().close()

    def abandon(self) -> None:
        """See `Sink.abandon`."""
        if self._writer is not None and self._file is not None:
            self._writer.is_open = False  # or it would write the end of the file once forgotten
            self._file.close()
            self._writer = None

    def _flush(self) -> None:
        if self._writer is None:
            self._open(self._rows[0])
        schema = self._writer.schema
        columns = [self._column(field) for field in schema]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=schema))
        self._rows, self._size = [], 0

    def _open(self, record: Record) -> None:
        arrow, feature = self._arrow, self._medium.feature
        content = feature.lower() if feature else FIRST
        names = [content, *(name for name in record if name not in {content, *OWN}), *OWN]
        types = {name: self._type_of(record.get(name)) for name in names}
        schema = arrow.schema([(name, types[name]) for name in names])
        if feature:
            info = {"info": {"features": {content: {"_type": feature}}}}
            schema = schema.with_metadata({"huggingface": json.dumps(info)})
        self._file = open_no_link(self.part, "wb")
        repeated = [name for name in names if name not in {content, "sha256"}]
        self._writer = self._parquet.ParquetWriter(self._file, schema, use_dictionary=repeated)

    def _column(self, field: Any) -> Any:
        """A column of the waiting rows; in one of texts, other values are JSON."""
        values = [row.get(field.name) for row in self._rows]
        if field.type == self._arrow.string():
            values = [_as_text(value) for value in values]
        return self._arrow.array(values, field.type)

    def _type_of(self, value: object) -> Any:
        arrow = self._arrow
        match value:
            case {"bytes": _, "path": _}:
                return arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
            case bool():
                return arrow.bool_()
            case int():
                return arrow.int64()
            case float():
                return arrow.float64()
        return arrow.string()


def _as_text(value: Any) -> str | None:
    """A conversation, or settings, as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
