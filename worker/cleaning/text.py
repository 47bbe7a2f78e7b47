"""Repairs texts: mojibake, Unicode, control characters, boilerplate lines; reports languages."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from worker.cleaning.rows import Row, map_texts, texts_of
from worker.cleaning.steps import Step

# lines that pages carry beside their text; whole lines only
BOILERPLATE = (
    r"(?:copyright|\(c\)|©).{0,100}|.{0,100}all rights reserved\.?",
    r"(?:this (?:site|website)|we) uses? cookies.*|accept (?:all )?cookies|cookie settings",
    r"(?:terms (?:of (?:use|service)|and conditions)|privacy policy)(?: ?[|·-].{0,80})?",
    r"(?:sign|log) (?:in|up|out)|subscribe (?:now|to our newsletter)\.?|read more\.*|share this",
    r"(?:page|seite) \d+(?: (?:of|von|/) ?\d+)?|\W*(?:advertisement|sponsored)\W*",
    r"(?:skip|jump) to (?:main )?content|back to top|follow us(?: on .*)?",
    r"click here(?: to .{0,60})?",
    r"\*{3} ?(?:start|end) of (?:the|this) project gutenberg.*",
    r"https?://\S+|[-=_*~#·•.]{5,}",
)
_LINE = re.compile("|".join(f"(?:{each})" for each in BOILERPLATE), re.IGNORECASE)
_KEPT = {"\n", "\t", "\r"}
HEAD = 1000  # characters that a language is guessed from
SURE = 0.5  # coherence from which on a language is named
MAX_LANGUAGES = 50


class CleanText(Step):
    """Repairs every text of a row; one that is empty then is left out."""

    name = "clean"
    parameters: Mapping[str, Any] = {
        "unicode": "NFC",
        "mojibake": "ftfy",
        "boilerplate": len(BOILERPLATE),
    }

    def __init__(self) -> None:
        self._changed: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()

    def __call__(self, content: Row) -> Row:
        """The row with its texts repaired."""
        cleaned = map_texts(content, self.clean)
        text = "\n".join(texts_of(cleaned))
        if not text.strip():
            raise self.refuse("nothing but boilerplate")
        language = language_of(text)
        known = language in self._languages or len(self._languages) < MAX_LANGUAGES
        self._languages[language if known else "other"] += 1
        return cleaned

    def found(self) -> dict[str, Any]:
        """How many texts each repair changed, and how many rows are in each language."""
        return {**self._changed, "languages": dict(self._languages.most_common())}

    def clean(self, text: str) -> str:
        """One text repaired."""
        repairs = (
            ("mojibake", _repair_encoding),
            ("unicode", lambda it: unicodedata.normalize("NFC", it)),
            ("control characters", _without_controls),
            ("boilerplate", _without_boilerplate),
        )
        for name, repair in repairs:
            repaired = repair(text)
            self._changed[name] += repaired != text
            text = repaired
        return text


def language_of(text: str) -> str:
    """The probable language of a text by its letters' frequencies, or `unknown`."""
    from charset_normalizer.cd import coherence_ratio  # noqa: PLC0415 - with the next, rarely needed

    found = coherence_ratio(text[:HEAD], threshold=0.2)
    return found[0][0] if found and found[0][1] >= SURE else "unknown"


def _repair_encoding(text: str) -> str:
    import ftfy  # noqa: PLC0415 - as above

    return ftfy.fix_encoding(text)


def _without_controls(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        each for each in text if each in _KEPT or unicodedata.category(each) not in {"Cc", "Cn"}
    )


def _without_boilerplate(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(line for line in lines if not _LINE.fullmatch(line.strip()))
