"""Models, their versions and aliases, evaluations with their judges, and promotions."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import String
from db.columns import Digest, Id, PlainText, StoredFiles, new_id
from db.tables.base import Base


class Model(Base):
    """A named line of trained weights."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    family: Mapped[str] = mapped_column(String(40))
    marks: Mapped[dict[str, Any] | None]  # the profile that its samples get by default
    created_at: Mapped[datetime]


class ModelVersion(Base):
    """Immutable weights and their origin."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    dataset_version_id: Mapped[str | None] = mapped_column(ForeignKey("dataset_versions.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    params: Mapped[dict[str, Any]]  # the family's parameters, complete
    # the number of the family's format that `params` are of
    format: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    made_by: Mapped[str | None] = mapped_column(String(100))  # as in "genmill 0.1.0+g6efa71a"
    files: Mapped[dict[str, Any]] = mapped_column(StoredFiles)
    weights_sha256: Mapped[str] = mapped_column(Digest, index=True)  # of model.safetensors
    metrics: Mapped[dict[str, Any]]
    shape: Mapped[dict[str, Any] | None]  # medium, labels, size of samples; NULL if unknown yet
    # of an imported version: what its model card says of its evaluation, data and lineage
    card: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Alias(Base):
    """A movable name for one of a model's versions."""

    __tablename__ = "aliases"
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(40), primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))


class Evaluation(Base):
    """The numbers of one model version under one protocol: never measured twice.

    `protocol` says how: dataset version, split, count, seed, judge, sampling settings; its digest
    names it. `items` are the arrays with a row for each item, which comparisons resample.
    """

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("version_id", "protocol_sha256"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    version_id: Mapped[str] = mapped_column(ForeignKey("model_versions.id"))
    dataset_version_id: Mapped[str] = mapped_column(ForeignKey("dataset_versions.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    protocol: Mapped[dict[str, Any]]
    protocol_sha256: Mapped[str] = mapped_column(Digest)  # of its canonical JSON
    # by metric: value, low, high, real (real data against real data), n, better (lower | higher)
    numbers: Mapped[dict[str, Any]]
    items_key: Mapped[str] = mapped_column(String(200))
    items_sha256: Mapped[str] = mapped_column(Digest)
    created_at: Mapped[datetime]


class Judge(Base):
    """A network, trained once on a dataset version, whose features evaluations compare.

    The first one that is committed for a recipe counts: other numbers would not be comparable.
    """

    __tablename__ = "judges"
    __table_args__ = (UniqueConstraint("dataset_version_id", "recipe"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    dataset_version_id: Mapped[str] = mapped_column(ForeignKey("dataset_versions.id"))
    recipe: Mapped[str] = mapped_column(String(40))  # how it is built and trained
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    key: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(Digest)
    metrics: Mapped[dict[str, Any]]  # on held-out data, and how it was trained
    created_at: Mapped[datetime]


class Promotion(Base):
    """A change of an alias, or the refusal of one: who asked, why, and the numbers. Append only."""

    __tablename__ = "promotions"
    __table_args__ = (Index("ix_promotions_model_id_id", "model_id", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    alias: Mapped[str] = mapped_column(String(40))
    # promoted | forced | refused | rolled back | set | removed
    outcome: Mapped[str] = mapped_column(String(12))
    # the version that the alias was to have, and the one that it had
    version_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    previous_id: Mapped[str | None] = mapped_column(ForeignKey("model_versions.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    who: Mapped[str] = mapped_column(String(200))
    why: Mapped[str | None] = mapped_column(PlainText)
    verdict: Mapped[dict[str, Any] | None]  # the policy, the numbers and the reasons
    at: Mapped[datetime]
