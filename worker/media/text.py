"""Text in any language, including music as text; JSON Lines samples."""

import base64
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import JsonValue

from db.errors import Refused
from worker.cleaning.blank import BlankTexts
from worker.cleaning.personal import MaskPersonal
from worker.cleaning.recipe import DROP, Recipe
from worker.cleaning.rows import learnt_texts_of, texts_of
from worker.cleaning.steps import Step
from worker.cleaning.text import CleanText
from worker.data.dataset import DOCUMENTS, TRAIN, VALIDATION, LocalDataset, Shape
from worker.media.base import (
    CombinedFiles,
    Content,
    Conversion,
    Downloads,
    Intake,
    Medium,
    Page,
    SampleFiles,
    SourceFormat,
)
from worker.media.faults.texts import text_faults
from worker.media.fingerprints import texts as fingerprints
from worker.media.fingerprints.bits import Fingerprints
from worker.media.samples.containers import JsonLines, Output, SampleRecord, describe
from worker.media.samples.exhibit import Exhibit, draw
from worker.media.samples.parts import Part, line_parts
from worker.media.samples.record import (
    CREDENTIALS,
    Record,
    begins_as_object,
    parse_record,
    to_json,
)
from worker.media.samples.tags import Label, Tag
from worker.media.sources import documents
from worker.media.sources.layout import Layout, Names
from worker.music.synthesiser import RATE, play

if TYPE_CHECKING:
    from worker.music.notes import Piece

SHOWN_CHARACTERS = 400  # of a row on a page
NOTES = "a note such as 60:4"  # what a text needs to be played
TEXT_SUFFIXES = frozenset({".txt"})
MIDI_SUFFIXES = frozenset({".mid", ".midi", ".kar", ".rmi", ".smf"})


def take_one_text(intake: Intake) -> Content:
    """One text file as a dataset, cut in order into the splits."""
    path, copy = intake.source.path, intake.folder / "repaired.part"
    if intake.options.keys() & {"clean", "mask_personal"}:
        documents.write_repaired(path, copy, intake.chain)
        path = copy
    rows = documents.read_one_text(path, intake.settlement.ratio, intake.chain)
    intake.reading["splits"] = "cut from the text in order"
    written = _write(rows, intake, cut=True)
    copy.unlink(missing_ok=True)
    return written


def take_text_files(intake: Intake) -> Content:
    """Text files as a dataset, one document a file."""
    layout = _layout(intake, TEXT_SUFFIXES)
    rows = documents.read_files(
        intake.source, layout, intake.rejects, intake.chain, suffixes=TEXT_SUFFIXES
    )
    return _write(rows, intake)


def take_midi_files(intake: Intake) -> Content:
    """MIDI files as a dataset, each as a text of notes."""
    from worker.music.midi import midi_to_text  # noqa: PLC0415 - mido takes long to load

    layout = _layout(intake, MIDI_SUFFIXES)
    rows = documents.read_files(
        intake.source,
        layout,
        intake.rejects,
        intake.chain,
        suffixes=MIDI_SUFFIXES,
        decode=midi_to_text,
    )
    return _write(rows, intake)


def take_rows(intake: Intake) -> Content:
    """JSON Lines or JSON files as a dataset, one document a line or item."""
    layout = _layout(intake, documents.ROW_SUFFIXES)
    rows = documents.read_row_files(intake.source, layout, intake.rejects, intake.chain)
    return _write(rows, intake)


def _write(rows: Iterator[documents.SplitRow], intake: Intake, *, cut: bool = False) -> Content:
    target = intake.folder / DOCUMENTS
    return Shape("text"), documents.write_rows(rows, target, intake.settlement, cut=cut)


def _layout(intake: Intake, suffixes: Collection[str]) -> Layout:
    """Where the splits of texts come from; texts have no labels."""
    names = Names()
    for member in intake.source.members():
        if member.suffix in suffixes:
            names.add(member)
    layout = names.layout(labelled=False)
    intake.reading["splits"] = layout.describe_splits()
    return layout


def as_text(sample: bytes, record: bytes) -> Mapping[str, bytes]:
    """The text, the JSON line that it comes from and, of a signed one, its C2PA manifest."""
    line = json.loads(sample)
    files = {".txt": line["text"].encode(), ".json": sample}
    if CREDENTIALS in line:
        files[".c2pa"] = base64.b64decode(line[CREDENTIALS])
    return files


def as_midi(sample: bytes, record: bytes) -> Mapping[str, bytes]:
    """The notes of the text as a MIDI file with the record; words that are no notes are skipped."""
    from worker.music.midi import write_midi  # noqa: PLC0415 - as above

    comment = to_json(_unmarked(sample))
    return _played(sample, ".mid", lambda piece: write_midi(piece, comment=comment))


def as_wav(sample: bytes, record: bytes) -> Mapping[str, bytes]:
    """The notes of the text as a WAV file with the record, made by the synthesiser."""
    from worker.media.samples.wav import comments, write_wav  # noqa: PLC0415 - needed here only

    own = _unmarked(sample)
    info = comments(to_json(own).encode(), own.get("genmill"))
    return _played(sample, ".wav", lambda piece: write_wav(play(piece), RATE, info))


def as_sound(sample: bytes) -> tuple[Output, Record] | None:
    """The same as a sound, float32 (T,) in [-1, 1], and its record; None without any notes."""
    from worker.music import notes  # noqa: PLC0415 - as above

    own = _unmarked(sample)
    piece = notes.read(own["text"])
    return (play(piece) / np.float32(32767), own) if piece.notes else None


def _unmarked(line: bytes) -> Record:
    """The record of a sample and its text, without the tags and the signature behind them."""
    found: Record = json.loads(line)
    kept = [*found][: [*found].index("text") + 1]
    return {name: found[name] for name in kept}


def _line(sample: SampleRecord) -> bytes:
    if not isinstance(sample.output, str):
        raise Refused(f"sample {sample.index} is {describe(sample.output)}, not text")
    text = to_json({"text": sample.output}).encode()
    return sample.json[:-1] + b"," + text[1:]


def _plain(text: str) -> JsonValue:
    """A tag's text; one that is JSON itself as what it means."""
    value: JsonValue = json.loads(text) if text.startswith("{") else text
    return value


def _of_tag(value: JsonValue) -> str:
    """The inverse of `_plain`; JSON in tags is ASCII."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _learnt(dataset: LocalDataset, split: int) -> Iterator[str]:
    return (text for row in dataset.documents(split) for text in learnt_texts_of(row))


def _played(sample: bytes, suffix: str, play: "Callable[[Piece], bytes]") -> Mapping[str, bytes]:
    from worker.music import notes  # noqa: PLC0415 - needed here only

    piece = notes.read(json.loads(sample)["text"])
    return {suffix: play(piece)} if piece.notes else {}


class TextMedium(Medium):
    """Text."""

    name = "text"
    precedence = 2
    policy = {"primary": {"metric": "loss"}}  # noqa: RUF012 - read only
    options = ("clean", "mask_personal")
    smallest = (1, "characters")
    sources = (
        SourceFormat(
            "music",
            "a folder or archive of MIDI files",
            take_midi_files,
            member_suffixes=MIDI_SUFFIXES,
        ),
        SourceFormat(
            "texts",
            "a folder or archive of .txt files",
            take_text_files,
            member_suffixes=TEXT_SUFFIXES,
            gives_way=True,
        ),
        SourceFormat(
            "jsonl",
            "a .jsonl or .json file, or a folder or archive of them",
            take_rows,
            member_suffixes=documents.ROW_SUFFIXES,
            file_suffixes=documents.ROW_SUFFIXES,
        ),
        SourceFormat(
            "text",
            "a .txt file (or any other text file, with --kind text)",
            take_one_text,
            file_suffixes=TEXT_SUFFIXES,
            any_suffix=True,
        ),
    )
    label_text = "（AI生成）"  # noqa: RUF001 - Chinese brackets
    signature = b"{"
    suffix = ".json"
    watermark = "text_watermark"
    sample_type = "application/json"
    schema_type = "CreativeWork"
    container = JsonLines
    downloads: ClassVar[Downloads] = {
        "jsonl": CombinedFiles.RECORDS,
        "files": SampleFiles(as_text, (".txt", ".json", ".c2pa")),
        "parquet": CombinedFiles.TABLE,
        "midi": Conversion(as_midi, (".mid",), needs=NOTES),
        "wav": Conversion(
            as_wav, (".wav",), needs=NOTES, shape=Shape("audio", sample_rate=RATE), convert=as_sound
        ),
    }
    evaluated = 200
    page = Page(rows=8, columns=1, micro_batch=8, suffix=".txt", media_type="text/plain")
    pipeline_tag = "text-generation"

    def claims(self, data: bytes) -> bool:
        """Also behind spaces or the mark of UTF-8: such a line can be read."""
        return begins_as_object(data)

    def cleaning(self, recipe: Recipe) -> list[Step]:
        """White space, damaged characters, personal data."""
        steps: list[Step] = [CleanText()] if recipe.clean else []
        if recipe.mask_personal:
            steps.append(MaskPersonal())
        return [*steps, BlankTexts()] if recipe.blank == DROP else steps

    def contents(self, dataset: LocalDataset) -> Iterator[bytes]:
        """The rows without their splits."""
        for row in dataset.rows():
            del row["split"]
            yield to_json(row).encode()

    def outputs(self, dataset: LocalDataset, items: Sequence[int]) -> list[Output]:
        """The beginnings of some rows' texts."""
        chosen = set(items)
        rows = islice(dataset.rows(), max(chosen, default=-1) + 1)
        found = (row for number, row in enumerate(rows) if number in chosen)
        return ["\n".join(texts_of(row))[:SHOWN_CHARACTERS] for row in found]

    def faults(
        self, samples: Sequence[Output], dataset: LocalDataset, shape: Shape, *, tuned: bool
    ) -> list[str]:
        """By the runs of characters that they share with the dataset and with one another."""
        made = [str(each) for each in samples]
        held_out, train = _learnt(dataset, VALIDATION), _learnt(dataset, TRAIN)
        return text_faults(made, held_out, train, tuned=tuned)

    def encode(self, samples: Sequence[SampleRecord], shape: Shape) -> list[bytes]:
        """Lines of JSON: the record and `text`."""
        return [_line(sample) for sample in samples]

    def read_record(self, data: bytes) -> Record:
        """The line itself."""
        return parse_record(data, "the text")

    def with_tags(self, data: bytes, tags: Sequence[Tag]) -> bytes:
        """As further keys of the line."""
        keys = {tag.name: _plain(tag.text) for tag in tags}
        return data[:-1] + b"," + to_json(keys).encode()[1:] if keys else data

    def read_tags(self, data: bytes) -> Mapping[str, str]:
        """The keys of a line."""
        keys = parse_record(data, "the text").items()
        return {f"JSON {key}": _of_tag(value) for key, value in keys}

    def tag_places(self, name: str, xmp: str) -> tuple[str, ...]:
        """See `Medium`."""
        return (f"JSON {name}",)

    def label_misfit(self, output: Output, label: Label, shape: Shape) -> str:
        """Any text has room."""
        return ""

    def with_label(self, output: Output, label: Label, shape: Shape) -> Output:
        """As a line of its own at the end."""
        return f"{output}\n{label.text}"

    def has_label(self, data: bytes, label: Label) -> bool:
        """By the end of the text."""
        return str(self.read_record(data).get("text")).rstrip().endswith(f"\n{label.text}")

    def decode(self, data: bytes) -> Output:
        """The text."""
        return str(self.read_record(data).get("text", ""))

    def content(self, data: bytes) -> bytes:
        """The text."""
        return to_json({"text": self.read_record(data).get("text")}).encode()

    def parts(self, data: bytes) -> Iterator[Part]:
        """The record, the text and its signed manifest."""
        return line_parts(data)

    def fingerprints(self, outputs: Sequence[Output], shape: Shape) -> Fingerprints:
        """Of the texts' shingles."""
        return fingerprints.of_texts(map(str, outputs))

    def fingerprints_of_file(self, data: bytes) -> Fingerprints:
        """Of a text of a sample, or of a file of text."""
        return fingerprints.of_text_file(data)

    def copy_distance(self, sample: bytes, data: bytes) -> float:
        """By the shingles that the shorter text shares."""
        return fingerprints.part_distance(
            fingerprints.read_text(sample), fingerprints.read_text(data)
        )

    def exhibit(self, data: bytes) -> Exhibit:
        """The text; of music, also its notes as a picture, played by the synthesiser."""
        from worker.media.samples.piano_roll import piano_roll  # noqa: PLC0415 - as the next
        from worker.music import notes  # noqa: PLC0415 - needed for music only

        text = str(self.read_record(data).get("text") or "")
        piece = notes.read(text) if notes.is_music(text) else notes.Piece(())
        if not piece.notes:
            return Exhibit(text=text)
        picture, size = draw(piano_roll(piece))
        sound = as_wav(data, data)[".wav"]
        return Exhibit(picture, size, is_sketch=True, sound=sound, text=text)

    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """Write a file of all texts."""
        path.write_text(f"\n{'-' * 40}\n".join(map(str, outputs)) + "\n", encoding="utf-8")


MEDIUM = TextMedium()
