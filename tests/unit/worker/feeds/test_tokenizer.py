# ruff: noqa: RUF001 - Chinese has its own commas
import json
import subprocess
import sys

import pytest
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Inner

from db.errors import BadInput, Refused
from worker.feeds.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

ENGLISH = (
    "The quick brown fox jumps over the lazy dog.\n  It's 12,345 metres — naïve café!\r\n" * 20
)
CHINESE = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少？\n" * 20
MIXED = ENGLISH + CHINESE + "Привет 👩\u200d🚀 نص\t"


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
@pytest.mark.parametrize("text", [ENGLISH, CHINESE, MIXED], ids=["english", "chinese", "mixed"])
def test_a_text_comes_back_as_it_was(kind, text):
    tokenizer = train_tokenizer([text, text], kind=kind)

    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
def test_a_saved_tokenizer_reads_the_same(tmp_path, kind):
    tokenizer = train_tokenizer([MIXED], kind=kind)
    tokenizer.save(tmp_path)

    loaded = load_tokenizer(tmp_path)

    assert loaded.digest == tokenizer.digest
    assert loaded.size == tokenizer.size
    assert loaded.encode(MIXED) == tokenizer.encode(MIXED)


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_what_the_text_never_held_is_one_unknown_token_a_character(kind):
    tokenizer = train_tokenizer([ENGLISH], kind=kind)

    ids = tokenizer.encode("fox鸟👩dog")

    assert ids.count(Tokenizer.unknown) == 2
    assert tokenizer.decode(ids) == "fox\ufffd\ufffddog"


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
def test_a_special_token_in_a_text_is_plain_text(tmp_path, kind):
    text = "to write <|end|> or <|unknown|> ends nothing"
    train_tokenizer([text, text], kind=kind).save(tmp_path)
    tokenizer = load_tokenizer(tmp_path)

    ids = tokenizer.encode(text)

    assert Tokenizer.end not in ids
    assert Tokenizer.unknown not in ids
    assert tokenizer.decode(ids) == text


def test_words_are_tokens_with_the_blank_before_them():
    tokenizer = train_tokenizer([ENGLISH], kind="words")

    pieces = [tokenizer.pieces[i] for i in tokenizer.encode("The lazy fox, over 12,345 metres!\n")]

    assert pieces == ["The", " lazy", " fox", ",", " over", " 12", ",", "345", " metres", "!", "\n"]


def test_a_character_is_a_word_where_words_have_no_blanks():
    tokenizer = train_tokenizer([CHINESE], kind="words")

    assert [tokenizer.pieces[i] for i in tokenizer.encode("啼鸟。")] == ["啼", "鸟", "。"]


def test_a_word_seen_once_or_never_is_one_unknown_token():
    tokenizer = train_tokenizer(["the cat and the dog and the cat\nthe dog hat"], kind="words")

    ids = tokenizer.encode("the cat the hat the hippopotamus ")

    assert tokenizer.decode(ids) == "the cat the\ufffd the\ufffd "
    assert ids.count(Tokenizer.unknown) == 2


def test_words_seen_once_are_words_where_there_are_no_others():
    tokenizer = train_tokenizer(["one two three"], kind="words")

    assert tokenizer.decode(tokenizer.encode("one three")) == "one three"


def test_a_vocabulary_limit_keeps_the_commonest_words():
    text = "a a a a b b b c c"

    tokenizer = train_tokenizer([text], kind="words", vocabulary=5)

    assert tokenizer.pieces == ("", "\ufffd", " a", " b", " ")


def test_byte_pairs_shorten_a_text():
    tokenizer = train_tokenizer([ENGLISH], kind="bpe")

    assert len(tokenizer.encode(ENGLISH)) < len(ENGLISH) / 3


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_a_vocabulary_limit_drops_the_rarest_characters(kind):
    tokenizer = train_tokenizer(["aaaa bbbb cccc d"], kind=kind, vocabulary=6)

    assert tokenizer.size == 6
    assert tokenizer.decode(tokenizer.encode("abcd")) == "abc\ufffd"


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
def test_the_same_text_gives_the_same_tokenizer_in_another_process(kind):
    code = (
        "from worker.feeds.tokenizer import train_tokenizer\n"
        f"print(train_tokenizer([{MIXED!r}], kind={kind!r}).digest)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert made.stdout.decode().strip() == train_tokenizer([MIXED], kind=kind).digest


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(BadInput, match="hold no characters"):
        train_tokenizer(["", ""], kind="characters")


@pytest.mark.parametrize("vocabulary", [1, 2, 100_000_000])
def test_an_absurd_vocabulary_is_refused_with_the_limits(vocabulary):
    with pytest.raises(Refused, match=f"vocabulary is {vocabulary}: it must be 3 to 65536"):
        train_tokenizer([ENGLISH], kind="bpe", vocabulary=vocabulary)


@pytest.mark.parametrize("content", ["", "{}", "not JSON"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_somebody_elses_tokenizer_is_refused(tmp_path):
    train_tokenizer([ENGLISH], kind="characters").save(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text())
    words = data["model"]["vocab"]
    words["other"] = words.pop("<|end|>")
    path.write_text(json.dumps(data))

    with pytest.raises(BadInput, match="does not begin with the tokens"):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"tokenizer\.json of the model cannot be read"):
        load_tokenizer(tmp_path)


def test_a_text_at_which_the_library_panics_is_bad_input_and_the_next_is_not():
    inner = Inner(models.WordLevel({"<|end|>": 0, "<|unknown|>": 1, "b": 2}, "<|unknown|>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = Tokenizer(inner)

    for read in (tokenizer.encode, tokenizer.ending):
        with pytest.raises(BadInput, match=r"cannot read 'aaaa.*PanicException"):
            read("a" * 60 + "!")
    assert tokenizer.encode("b") == [2]
