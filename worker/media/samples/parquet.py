"""Parquet by pyarrow, an optional extra of 55 MB."""

from typing import Any

from db.errors import BadInput


def load_pyarrow(instead: str) -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises `BadInput` if they are not installed; `instead` says what to do without them.
    """
    try:
        import pyarrow  # noqa: PLC0415 - large, and an optional extra
        from pyarrow import parquet  # noqa: PLC0415 - as above
    except ImportError:
        raise BadInput(
            "Parquet needs pyarrow, which is not installed",
            remedy=f"install genmill[parquet], or {instead}",
        ) from None
    return pyarrow, parquet
