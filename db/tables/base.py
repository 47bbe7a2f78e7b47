"""The root of the tables, and partial indices."""

from typing import ClassVar

from sqlalchemy import Index, MetaData
from sqlalchemy.orm import DeclarativeBase

from db.columns import COLUMN_TYPES, CONSTRAINT_NAMES


class Base(DeclarativeBase):
    """The root of the tables."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map: ClassVar = COLUMN_TYPES


def partial_index(name: str, *columns: str, also: str = "") -> Index:
    """An index of the rows that have the first of the columns and meet another condition."""
    condition = f"{columns[0]} IS NOT NULL" + (f" AND {also}" if also else "")
    return index_where(name, *columns, condition)


def index_where(name: str, *columns_and_condition: str) -> Index:
    """An index of the rows that meet a condition, which only the migrations make."""
    *columns, condition = columns_and_condition
    # `postgresql_where` would import that dialect, which is slow, on SQLite too
    return Index(name, *columns, info={"where": condition})
