"""Text to token ids and back: single characters, words, or byte pair encoding over characters.

Any language: the alphabet is what the training text holds, and everything else becomes one unknown
token. Byte pairs are over characters, not bytes (Sennrich, Haddow, Birch 2016, arXiv:1508.07909),
so that a small model can never make invalid UTF-8. A word is one token with the blank before it;
words seen only once, and those beyond the limit, are unknown as wholes. Nothing in a text is ever
read as a special token. Kept as `tokenizer.json`, the format of Hugging Face's `tokenizers`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from db.errors import BadInput, Refused

Kind = Literal["characters", "words", "bpe"]

FILE = "tokenizer.json"
END, UNKNOWN = "<|end|>", "<|unknown|>"
SPECIAL = (END, UNKNOWN)  # ids 0 and 1
MAX_VOCABULARY = 65_536
MOST_WORDS = 10_000  # of a vocabulary that the text decides
BLANK = " "
REPLACEMENT = "\ufffd"
# One character each; Oniguruma's (?m) lets the dot match a line break.
CHARACTER = r"(?m)."
# GPT-2's words (Radford et al. 2019), with numbers in groups of at most three digits.
WORD = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same, but that a character is a word where words are written without blanks.
ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD_OR_CHARACTER = WORD.replace(r" ?\p{L}+", rf"[{ALONE}]| ?[\p{{L}}&&[^{ALONE}]]+")


class Tokenizer:
    """A vocabulary of `size` tokens. `end` is the id that ends (and begins) a document."""

    end = 0
    unknown = 1

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self._inner.encode_special_tokens = True  # "<|end|>" in a text is seven characters
        self.size: int = inner.get_vocab_size()
        self._completions: dict[str, list[int]] = {}

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """What each id stands for in a text: "" for the end, U+FFFD for the unknown."""
        known = (str(self._inner.id_to_token(i)) for i in range(len(SPECIAL), self.size))
        return ("", REPLACEMENT, *known)

    def completions(self, piece: str) -> list[int]:
        """The tokens that `piece` begins, itself among them; none where it has no letters."""
        if piece not in self._completions:
            found = [i for i, other in enumerate(self.pieces) if other.startswith(piece)]
            self._completions[piece] = found if piece not in {"", REPLACEMENT} else []
        return self._completions[piece]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""
        return hashlib.sha256(self._inner.to_str().encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; what is not in the vocabulary becomes `unknown`.

        That is one token a character outside the alphabet or, of words, one a word.
        """
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def ending(self, text: str) -> str:
        """What the last token of a text stands for there, be it unknown; "" of an empty text."""
        offsets = self._inner.encode(text, add_special_tokens=False).offsets
        return text[offsets[-1][0] :] if offsets else ""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids: the plain concatenation of their pieces."""
        return "".join(self.pieces[i] for i in ids)

    def save(self, folder: Path) -> Path:
        """Write `tokenizer.json` into `folder`."""
        path = folder / FILE
        path.write_text(self._inner.to_str(pretty=False), "utf-8")
        return path


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a folder's `tokenizer.json`; raise `BadInput` where it is missing or not one of ours."""
    path = folder / FILE
    try:
        inner = Inner.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises bare exceptions for what it cannot read
        raise BadInput(f"{path.name} of the model cannot be read: {error}") from None
    if [inner.id_to_token(i) for i in range(len(SPECIAL))] != list(SPECIAL):
        raise BadInput(f"{path.name} does not begin with the tokens {', '.join(SPECIAL)}")
    return Tokenizer(inner)


def kept_tokenizer(
    folder: Path, texts: Iterable[str], *, kind: Kind, vocabulary: int = 0
) -> Tokenizer:
    """The tokenizer that `folder` keeps; where it keeps none, one learnt from `texts` and kept."""
    if not (folder / FILE).exists():
        learn_tokenizer(texts, kind=kind, vocabulary=vocabulary).save(folder)
    return load_tokenizer(folder)


def learn_tokenizer(texts: Iterable[str], *, kind: Kind, vocabulary: int = 0) -> Tokenizer:
    """Learn a tokenizer from training texts: at most `vocabulary` tokens, 0 choosing by the text.

    `texts` are gone through more than once. The same texts in the same order give the same
    tokenizer.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    if not counts:
        raise BadInput("the training texts hold no character: there is nothing to learn from")
    if vocabulary and not len(SPECIAL) < vocabulary <= MAX_VOCABULARY:
        raise Refused(
            f"vocabulary is {vocabulary}: allowed are {len(SPECIAL) + 1} to {MAX_VOCABULARY} "
            "tokens, and 0 to let the text decide"
        )
    if kind == "characters":
        return _characters(counts, vocabulary or MAX_VOCABULARY)
    if kind == "words":
        return _words(texts, vocabulary or MOST_WORDS)
    return _byte_pairs(texts, counts, vocabulary or _sensible_size(counts))


def _sensible_size(counts: Counter[str]) -> int:
    """The alphabet, and so many merges that most words of a small text are one token each."""
    merges = min(max(counts.total() // 150, 256), 8_192)
    return min(len(counts) + len(SPECIAL) + merges, MAX_VOCABULARY)


def _characters(counts: Counter[str], limit: int) -> Tokenizer:
    common = sorted(counts, key=lambda c: (-counts[c], c))[: limit - len(SPECIAL)]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(common)])}
    inner = Inner(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(CHARACTER), "isolated")
    inner.decoder = decoders.Fuse()
    return Tokenizer(inner)


def _words(texts: Iterable[str], limit: int) -> Tokenizer:
    """The most common words of those seen twice; of those seen once where there are no others."""
    vocabulary: dict[str, int] = {}
    for frequency in (2, 1):
        if len(vocabulary) <= len(SPECIAL):
            vocabulary = _common_words(texts, limit - 1, frequency)
    # a prompt may end with a blank, which most texts hold only as the beginning of a word
    vocabulary.setdefault(BLANK, len(vocabulary))
    return Tokenizer(_in_words(vocabulary))


def _common_words(texts: Iterable[str], limit: int, frequency: int) -> dict[str, int]:
    inner = _in_words({})
    trainer = trainers.WordLevelTrainer(
        vocab_size=limit,
        min_frequency=frequency,
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = inner.get_vocab()
    return vocabulary


def _in_words(vocabulary: dict[str, int]) -> Inner:
    inner = Inner(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_OR_CHARACTER), "isolated")
    inner.decoder = decoders.Fuse()
    return inner


def _byte_pairs(texts: Iterable[str], counts: Counter[str], limit: int) -> Tokenizer:
    inner = Inner(models.BPE(unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "isolated")
    inner.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(
        vocab_size=limit,
        limit_alphabet=min(len(counts), max(limit - len(SPECIAL), 1)),
        special_tokens=list(SPECIAL),
        min_frequency=2,
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner)
