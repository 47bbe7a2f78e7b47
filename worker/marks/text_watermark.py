"""The watermark of texts: in which tokens were drawn, from 200 tokens."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.errors import BadInput, raise_outage
from worker.extras import needed_for
from worker.marks.base import DAMAGED, NOT_APPLICABLE, Mark, Marking, Reading, Stage
from worker.marks.watermarks import tokens
from worker.marks.watermarks.readings import PURPOSE, Found, read_by_keys
from worker.media.samples.containers import SampleRecord

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium

LEVEL = 1e-6  # p-value up to which a text counts as marked
LEAST_TOKENS = 200  # of a text that has to carry the mark
LEAST_SCORED = 50  # tokens of a text of which anything is said
MOST_CHARACTERS = 10 * tokens.MOST_SCORED  # of a text that are read: tokenizers take their time
NO_TEXT = "not a text"

Tokenize = Callable[[str], Sequence[int]]


class TextWatermark(Mark):
    """See `worker.marks.watermarks.tokens`. The sampler applies it, and only the model's tokenizer
    can read it: `read` asks for it, `read_text` takes it.
    """

    name = "text_watermark"
    stage = Stage.CONTENT
    purposes = (PURPOSE,)
    statistical = True
    is_written = False  # `misfit` has tested it

    def misfit_of_job(self, marking: Marking) -> str:
        """See `Mark.misfit_of_job`."""
        return "" if marking.medium.watermark == self.name else NO_TEXT

    def misfit(self, sample: SampleRecord, marking: Marking) -> str:
        """Short texts, and those of which the test finds nothing: there was too little to choose.

        Without the model's tokenizer nothing is tested, and each character counts as a token.
        """
        if not isinstance(sample.output, str):
            return NO_TEXT
        record = sample.shared.record
        if record["sampling"].get("temperature") == 0:
            return "no choice of tokens at temperature 0"
        found = marking.tokens(sample.output) if marking.tokens else ()
        if len(found if marking.tokens else sample.output) < LEAST_TOKENS:
            return f"under {LEAST_TOKENS} tokens"
        if marking.tokens is None:
            return ""
        variant = tokens.variant_of(record["seed"], sample.index)
        test = tokens.detect(found, marking.keys.secret(PURPOSE), variant)
        return "" if test.p_value <= LEVEL else "too little choice of tokens to show the mark"

    def token_hook(self, marking: Marking) -> bytes | None:
        """The secret, from which the sampler derives the sample's keys."""
        return marking.keys.secret(PURPOSE)

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """Not applicable: see `read_text`."""
        if medium.watermark != self.name:
            return Reading(self.name, NOT_APPLICABLE, why="a watermark of texts")
        return Reading(self.name, NOT_APPLICABLE, why="it takes the model's tokenizer to read it")

    def read_text(self, data: bytes, keys: "Keyring", tokenize: Tokenize) -> Reading:
        """What the mark says about a sample, or about any UTF-8 text without a record.

        A record says which of a secret's variants to test; the others are tested if that fails.
        """
        try:
            text, variant = _text_of(data)
            found = tokenize(text[:MOST_CHARACTERS])
        except BadInput as error:
            return Reading(self.name, DAMAGED, why=error.message)
        scored = len(tokens.ngrams_of(found))
        if scored < LEAST_SCORED:
            why = f"{scored} tokens to score; under {LEAST_SCORED} say nothing"
            return Reading(self.name, NOT_APPLICABLE, {"tokens_scored": scored}, why)

        def test_by(variant: int | None) -> Callable[[bytes], Found]:
            return lambda secret: _found(tokens.detect(found, secret, variant))

        tests = [test_by(each) for each in dict.fromkeys((variant, None))]
        return read_by_keys(self.name, keys, tests, level=LEVEL)


def tokenizer_in(folder: Path) -> Tokenize:
    """The tokenizer of a version's folder, by which its texts are read, without special tokens.

    Raises `MissingPackage` without the package `tokenizers`; `BadInput` if the folder has no
    `tokenizer.json`, or one that cannot be read.
    """
    with needed_for("reading the watermark of a text"):
        from tokenizers import Tokenizer  # noqa: PLC0415 - not in the base install
    path = folder / "tokenizer.json"
    try:
        inner = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises bare exceptions
        raise_outage(error)
        raise BadInput(f"{path.name} of the model cannot be read: {error}") from None
    inner.encode_special_tokens = True  # a text's "<|end|>" is characters
    inner.no_truncation()

    def tokenize(text: str) -> list[int]:
        ids: list[int] = inner.encode(text, add_special_tokens=False).ids
        return ids

    return tokenize


def _text_of(data: bytes) -> tuple[str, int | None]:
    """The text of a file, and the variant that its record names."""
    try:
        whole = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput("not UTF-8 text") from None
    record = _record_in(whole)
    if record is None:
        return whole, None
    seed, index = record.get("seed"), record.get("index")
    text = record["text"].encode(errors="replace").decode()  # half of a pair, as JSON may have
    if isinstance(seed, int) and isinstance(index, int):
        return text, tokens.variant_of(seed, index)
    return text, None


def _record_in(whole: str) -> dict[str, Any] | None:
    try:
        record = json.loads(whole)
    except (ValueError, RecursionError):
        return None
    is_sample = isinstance(record, dict) and isinstance(record.get("text"), str)
    return record if is_sample else None


def _found(test: tokens.Detection) -> Found:
    return test.p_value, {"tokens_scored": test.scored}


MARK = TextWatermark()
