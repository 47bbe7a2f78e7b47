"""Parquet by pyarrow, an optional extra of 55 MB."""

from typing import Any

from worker.extras import needed_for


def load_pyarrow(instead: str) -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises `MissingPackage` if they are not installed; `instead` says what to do without them.
    """
    with needed_for("Parquet", remedy=instead):
        import pyarrow  # noqa: PLC0415 - large, and an optional extra
        from pyarrow import parquet  # noqa: PLC0415 - as above
    return pyarrow, parquet
