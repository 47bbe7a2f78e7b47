"""The encoding of names that are not UTF-8, guessed from all names of an archive together.

Zip programs of Windows write the code page of their country without naming it. Names are too short
for statistics of languages, so a guess is judged by whether its characters are common in its
encoding and lie where words have them.
"""

import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise

# where each encoding keeps its common characters: the lead bytes of a pair
_COMMON = {
    "cp932": [(0x82, 0x83), (0x88, 0x98)],  # kana, kanji of level 1
    "cp949": [(0xB0, 0xC8)],  # Hangul
    "gb18030": [(0xB0, 0xD7)],  # hanzi of level 1
    "big5": [(0xA4, 0xC6)],  # hanzi of level 1
}
_QUOTES = "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\xab\xbb"
_LATIN, _CYRILLIC = ("cp437", "cp1252", "cp850"), ("cp866", "cp1251", "koi8-r")
ENCODINGS = (*_LATIN, *_COMMON, *_CYRILLIC)


def decode_names(names: Sequence[bytes]) -> list[str]:
    """Names as text: UTF-8 where they are, the others in the encoding that fits them best."""
    others = [name for name in names if not _is_utf8(name)]
    encoding = guess_encoding(others) if others else "utf-8"
    return [name.decode("utf-8" if _is_utf8(name) else encoding) for name in names]


def guess_encoding(names: Sequence[bytes]) -> str:
    """The encoding that fits names best, none of which is UTF-8; by default cp437, zip's own."""
    whole = b"/".join(names[:10_000])
    scores = {encoding: plausibility(whole, encoding) for encoding in ENCODINGS}
    usable = [encoding for encoding in scores if all(_decodes(name, encoding) for name in names)]
    return max(usable or ["cp437"], key=lambda encoding: scores[encoding])


def _is_utf8(name: bytes) -> bool:
    return _decodes(name, "utf-8")


def _decodes(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def plausibility(data: bytes, encoding: str) -> float:
    """How likely `data` is text of that encoding, up to 1: the mean of its characters not ASCII."""
    text = "/" + data.decode(encoding, "replace") + "/"
    judge: Callable[[str, str, str], float]
    if encoding in _COMMON:
        judge = lambda _before, char, _after: _east_asian(char, encoding)  # noqa: E731 - one of three
    else:
        judge = _latin if encoding in _LATIN else _cyrillic
    scores = [
        judge(before, char, after)
        for (before, char), after in zip(pairwise(text), text[2:], strict=False)
        if ord(char) > 127
    ]
    return sum(scores) / len(scores) if scores else 0.0


def _east_asian(char: str, encoding: str) -> float:
    if unicodedata.category(char) != "Lo":
        return -1.0
    lead, trail = char.encode(encoding, "replace")[0], char.encode(encoding, "replace")[-1]
    extended = encoding in {"cp949", "gb18030"} and trail < 0xA1
    common = any(low <= lead <= high for low, high in _COMMON[encoding])
    return 1.0 if common and not extended else 0.2


def _latin(before: str, char: str, after: str) -> float:
    """Accented letters stand alone between plain ones."""
    if char in _QUOTES:
        return 0.8
    if "LATIN" not in unicodedata.name(char, ""):
        return -1.0
    crowded = ord(before) > 127 or ord(after) > 127
    wrong_case = char.isupper() and before.islower()
    if crowded or wrong_case:
        return 0.3
    return 0.5 if "\\" in {before, after} else 1.0  # the second byte of many Japanese characters


def _cyrillic(before: str, char: str, after: str) -> float:
    """Cyrillic words are whole, with capitals only where they begin."""
    if "CYRILLIC" not in unicodedata.name(char, ""):
        return -1.0
    mixed = any(each.isascii() and each.isalpha() for each in (before, after))
    wrong_case = char.isupper() and (before.islower() or (after.islower() and before.isalpha()))
    return 0.2 if mixed or wrong_case else 0.9
