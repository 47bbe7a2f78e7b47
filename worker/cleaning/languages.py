"""The probable language of a text, for a report: by its script, and its most frequent small words.

A report needs no more than that, and libraries that guess languages bring large models or, like
charset-normalizer's letter frequencies, take a sentence of English for German.
"""

import re
import unicodedata
from collections import Counter

HEAD = 2000  # characters that are looked at
SHARE = 0.08  # of the words, that a language's small words must make up

_SCRIPTS = {  # the first word of a letter's Unicode name
    "CJK": "Chinese",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "ARABIC": "Arabic script",
    "HEBREW": "Hebrew",
    "GREEK": "Greek",
    "CYRILLIC": "Cyrillic script",
    "DEVANAGARI": "Devanagari script",
    "THAI": "Thai",
}
_WORDS = {
    "English": "the of and to in is that it was for with as his on be at by i you are not this",
    "German": "der die und das in den von zu ist mit sich des auf für nicht ein eine als auch es",
    "French": "le la les de des et un une du est que dans qui pour pas sur au ce il elle vous nous",
    "Spanish": "el la los las de y que en un una por con para es no se del al lo su como más pero",
    "Italian": "il la di che e un una per non è con sono del della in da si lo gli le al come più",
    "Portuguese": "o a os as de e que do da em um uma para com não no na por se mais como dos ao",
    "Dutch": "de het een en van in is dat op te zijn met voor niet aan er maar om ook als bij naar",
    "Swedish": "och att det i en som är på av för med den till inte har de ett om han jag var",
    "Polish": "i w nie na się że z do to jest jak ale o co tak po od za przez dla był czy",
    "Turkish": "ve bir bu da de için ile ne gibi o çok daha var olarak ben sen değil ama mi",
}
_SMALL = {language: frozenset(words.split()) for language, words in _WORDS.items()}


def language_of(text: str) -> str:
    """The language of a text, or `unknown`."""
    head = text[:HEAD]
    scripts = Counter(unicodedata.name(each, "?").split()[0] for each in head if each.isalpha())
    if not scripts:
        return "unknown"
    # Japanese is written with Chinese characters too, never the other way round
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > scripts.total() / 10:
        return "Japanese"
    script = scripts.most_common(1)[0][0]
    if script != "LATIN":
        return _SCRIPTS.get(script, f"{script.capitalize()} script")
    words = Counter(re.findall(r"[^\W\d_]+", head.casefold()))
    shares = {
        language: sum(words[each] for each in small) / words.total()
        for language, small in _SMALL.items()
    }
    best = max(shares, key=lambda each: shares[each])
    return best if shares[best] >= SHARE else "unknown"
