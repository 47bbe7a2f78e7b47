"""Text to token ids and back: characters, words, or byte pair encoding over characters.

The alphabet is that of the training text, in any language; other characters become the unknown
token. Byte pair encoding merges characters, not bytes (Sennrich, Haddow, Birch 2016,
arXiv:1508.07909), so that a small model cannot produce invalid UTF-8. A word includes the space
before it; words seen only once, and those beyond the limit, are unknown. Text is never parsed for
special tokens. Stored as `tokenizer.json`, the format of Hugging Face's `tokenizers`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from db.errors import BadInput, Refused, contained, raise_outage

Kind = Literal["characters", "words", "bpe"]

FILE = "tokenizer.json"
END, UNKNOWN = "<|end|>", "<|unknown|>"
SPECIAL = (END, UNKNOWN)  # ids 0 and 1
MAX_VOCABULARY = 65_536
MAX_WORDS = 10_000  # if `vocabulary` is 0
SPACE = " "
REPLACEMENT = "\ufffd"
# Oniguruma's (?m) lets the dot match a line break.
CHARACTER = r"(?m)."
# GPT-2's pattern (Radford et al. 2019), but numbers are split into at most three digits.
WORD = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same, but in scripts that do not separate words each character is a word.
ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD_OR_CHARACTER = WORD.replace(r" ?\p{L}+", rf"[{ALONE}]| ?[\p{{L}}&&[^{ALONE}]]+")


class Tokenizer:
    """A vocabulary of `size` tokens. The id `end` ends, and begins, a document."""

    end = 0
    unknown = 1

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self._inner.encode_special_tokens = (
            True  # "<|end|>" in a text is seven characters, not the token
        )
        self.size: int = inner.get_vocab_size()
        self._completions: dict[str, list[int]] = {}

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """The text of each id: "" for `end`, U+FFFD for `unknown`."""
        known = (str(self._inner.id_to_token(i)) for i in range(len(SPECIAL), self.size))
        return ("", REPLACEMENT, *known)

    def completions(self, piece: str) -> list[int]:
        """The tokens that start with `piece`, itself included; none for `end` and `unknown`."""
        if piece not in self._completions:
            found = [i for i, other in enumerate(self.pieces) if other.startswith(piece)]
            self._completions[piece] = found if piece not in {"", REPLACEMENT} else []
        return self._completions[piece]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""
        return hashlib.sha256(self._inner.to_str().encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; each character (or word) outside the vocabulary is one `unknown`."""
        with reading_text(text):
            ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def ending(self, text: str) -> str:
        """The piece of a text that its last token stands for, even if unknown; "" if empty."""
        with reading_text(text):
            offsets = self._inner.encode(text, add_special_tokens=False).offsets
        return text[offsets[-1][0] :] if offsets else ""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids: their pieces concatenated."""
        return "".join(self.pieces[i] for i in ids)

    def save(self, folder: Path) -> Path:
        """Write `tokenizer.json` into `folder`."""
        path = folder / FILE
        path.write_text(self._inner.to_str(pretty=False), "utf-8")
        return path


@contextmanager
def reading_text(text: object, *, remedy: str | None = None) -> Iterator[None]:
    """Raise `BadInput` in place of a tokenizer's errors and panics, which no retry can help.

    Its patterns have limits of their own, at which it panics. It holds no locks then.
    """
    try:
        yield
    except BaseException as error:
        raise_outage(error)
        complaint = " ".join(str(contained(error)).split())[:300]
        raise BadInput(
            f"the model's tokenizer cannot read {str(text)[:40]!r}: {complaint}", remedy=remedy
        ) from error


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a folder's `tokenizer.json`; raise `BadInput` if it is missing or not Genmill's."""
    path = folder / FILE
    try:
        inner = Inner.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises bare exceptions
        raise_outage(error)
        raise BadInput(f"{path.name} of the model cannot be read: {error}") from None
    if [inner.id_to_token(i) for i in range(len(SPECIAL))] != list(SPECIAL):
        raise BadInput(f"{path.name} does not begin with the tokens {', '.join(SPECIAL)}")
    return Tokenizer(inner)


def load_or_train_tokenizer(
    folder: Path, texts: Iterable[str], *, kind: Kind, vocabulary: int = 0
) -> Tokenizer:
    """Load the tokenizer in `folder`; if there is none, train one on `texts` and save it there."""
    if not (folder / FILE).exists():
        train_tokenizer(texts, kind=kind, vocabulary=vocabulary).save(folder)
    return load_tokenizer(folder)


def train_tokenizer(texts: Iterable[str], *, kind: Kind, vocabulary: int = 0) -> Tokenizer:
    """Train a tokenizer of at most `vocabulary` tokens; 0 chooses a size that suits the text.

    `texts` are iterated more than once. The same texts in the same order give the same tokenizer.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    if not counts:
        raise BadInput("the training texts hold no characters")
    if vocabulary and not len(SPECIAL) < vocabulary <= MAX_VOCABULARY:
        raise Refused(
            f"vocabulary is {vocabulary}: it must be {len(SPECIAL) + 1} to {MAX_VOCABULARY}",
            remedy="set 0 to choose it by the text",
        )
    if kind == "characters":
        return _characters(counts, vocabulary or MAX_VOCABULARY)
    if kind == "words":
        return _words(texts, vocabulary or MAX_WORDS)
    # enough merges for most words of a small text to be one token each
    merges = min(max(counts.total() // 150, 256), 8_192)
    chosen = min(len(counts) + len(SPECIAL) + merges, MAX_VOCABULARY)
    return _byte_pairs(texts, counts, vocabulary or chosen)


def _characters(counts: Counter[str], limit: int) -> Tokenizer:
    common = sorted(counts, key=lambda c: (-counts[c], c))[: limit - len(SPECIAL)]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(common)])}
    inner = Inner(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(CHARACTER), "isolated")
    inner.decoder = decoders.Fuse()
    return Tokenizer(inner)


def _words(texts: Iterable[str], limit: int) -> Tokenizer:
    """The most common words seen at least twice or, if there are none, once."""
    vocabulary: dict[str, int] = {}
    for frequency in (2, 1):
        if len(vocabulary) <= len(SPECIAL):
            vocabulary = _common_words(texts, limit - 1, frequency)
    # a prompt may end with a space, which texts mostly hold only as part of the next word
    vocabulary.setdefault(SPACE, len(vocabulary))
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
