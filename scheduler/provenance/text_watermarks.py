"""Reading the watermarks of texts, which takes the tokenizer of the model that wrote them."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from db import lineage, models
from db.errors import GenmillError, MissingPackage, Unreachable, WrongKey
from db.tables import ModelVersion
from worker.keys.keyring import Keyring
from worker.marks.base import ABSENT, NOT_APPLICABLE, Reading
from worker.marks.text_watermark import LEVEL, MARK, Tokenize, tokenizer_in
from worker.services import Services

NAME = "tokenizer.json"
MOST = 50  # versions whose tokenizers a text is tried with, if its model is not known

File = tuple[str, str]  # the key and the SHA-256 of a tokenizer


class TextWatermarks:
    """Reads texts by the tokenizers of models on record, each of which is loaded once."""

    def __init__(self, services: Services, keys: Keyring) -> None:
        self._services, self._keys = services, keys
        self._tokenizers: dict[File, Tokenize | None] = {}
        self._newest: list[File] | None = None

    def read(self, data: bytes, weights_sha256: str | None) -> Reading:
        """What the mark says of a text: by its version's tokenizer, or by all of the newest ones.

        Of several tokenizers, the one counts that finds most, and its p-value is that of as many
        tests.
        """
        try:
            known = list(self._of_version(weights_sha256)) if weights_sha256 else []
            tokenizers = [found for file in known or self._all() if (found := self._open(file))]
            readings = [MARK.read_text(data, self._keys, tokenize) for tokenize in tokenizers]
        except (MissingPackage, WrongKey) as error:
            return Reading(MARK.name, NOT_APPLICABLE, why=error.message)
        if not readings:
            return Reading(MARK.name, NOT_APPLICABLE, why="no tokenizer on record to read it by")
        return _clearest(readings)

    def _of_version(self, weights_sha256: str) -> Iterator[File]:
        with self._services.database.read() as session:
            versions = [each.version for each in lineage.by_weights(session, weights_sha256)]
        yield from list(_files(versions))[:1]

    def _all(self) -> list[File]:
        if self._newest is None:
            with self._services.database.read() as session:
                versions = [version for _, version in models.newest(session, MOST)]
            by_content = {sha256: (key, sha256) for key, sha256 in _files(versions)}
            self._newest = list(by_content.values())
        return self._newest

    def _open(self, file: File) -> Tokenize | None:
        """None for one that is lost or damaged."""
        if file not in self._tokenizers:
            key, sha256 = file
            try:
                with tempfile.TemporaryDirectory() as folder:
                    self._services.store.fetch(key, Path(folder, NAME), sha256=sha256)
                    self._tokenizers[file] = tokenizer_in(Path(folder))
            except (Unreachable, MissingPackage):
                raise
            except GenmillError:
                self._tokenizers[file] = None
        return self._tokenizers[file]


def _files(versions: Iterable[ModelVersion]) -> Iterator[File]:
    for each in versions:
        if NAME in each.files:
            yield each.files[NAME]["key"], each.files[NAME]["sha256"]


def _clearest(readings: Sequence[Reading]) -> Reading:
    """The reading with the lowest p-value, corrected for their number (Bonferroni's bound)."""
    best = min(readings, key=_p_value)
    if "p_value" not in best.says:
        return best
    chance = min(1.0, _p_value(best) * len(readings))
    says = {**best.says, "p_value": chance}
    return replace(best, says=says) if chance <= LEVEL else Reading(MARK.name, ABSENT, says)


def _p_value(reading: Reading) -> float:
    found = reading.says.get("p_value", 1.0)
    return float(found) if isinstance(found, int | float) else 1.0
