"""Tokenizers of strangers: their expressions read any text within limits, or are refused."""

import json
import time

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from db.errors import BadInput
from worker.feeds import tokenizer, tokenizer_check
from worker.feeds.tokenizer import train_tokenizer
from worker.feeds.tokenizer_check import check_expressions
from worker.feeds.tokenizer_process import RUN, expressions, texts

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
USUAL = [LLAMA, tokenizer.WORD, tokenizer.WORD_OR_CHARACTER, tokenizer.CHARACTER, r"\s+", "(a+)b?"]
HOSTILE = {
    "nested": "(a+)+$",
    "of words": r"(\w+\s?)+;",
    "of digits": r"(\d+)*x",
    "of alternatives": "(ab|a|b)+c",
    "of what it names alone": "(-+)+>",
    "of large counts": "((a{1,500}){1,500}){1,500};",
    "as large as the memory": r"\p{L}" * 40_000,
}


@pytest.fixture
def write(tmp_path):
    """Write a `tokenizer.json` that splits texts by an expression."""

    def write_json(expression, **parts):
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
        inner.decoder = decoders.ByteLevel()
        data = json.loads(inner.to_str())
        split = {"type": "Split", "pattern": {"Regex": expression}}
        split |= {"behavior": "Isolated", "invert": False}
        parts = {"pre_tokenizer": split} | parts
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(data | parts))
        return path

    return write_json


@pytest.mark.parametrize("expression", USUAL)
def test_usual_expressions_are_taken(write, expression):
    check_expressions(write(expression))


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
def test_our_own_tokenizers_are_taken(tmp_path, kind):
    check_expressions(train_tokenizer(["The cat sees the mat. 犬"], kind=kind).save(tmp_path))


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_expression_that_takes_too_much_is_refused(write, monkeypatch, kind):
    monkeypatch.setattr(tokenizer_check, "CPU_S", 0.5)
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"tokenizer\.json: a regular expression takes too much: "):
        check_expressions(write(HOSTILE[kind]))
    assert time.monotonic() - began < 60
    check_expressions(write(LLAMA))  # by another process, if that one ended


def test_those_that_normalise_are_tried_too(write, monkeypatch):
    monkeypatch.setattr(tokenizer_check, "CPU_S", 1.0)
    replace = {"type": "Replace", "pattern": {"Regex": HOSTILE["nested"]}, "content": ""}
    with pytest.raises(BadInput, match="takes too much"):
        check_expressions(write(LLAMA, normalizer=replace))


def test_what_cannot_be_read_is_left_to_whoever_reads_it(tmp_path):
    path = tmp_path / "tokenizer.json"
    for text in ("{}", "[1", '{"model": null}'):
        path.write_text(text)
        check_expressions(path)


def test_the_texts_are_runs_of_what_an_expression_holds():
    found = [*expressions({"a": [{"pattern": {"Regex": "(x-|y)+"}}], "vocab": {"Regex": "no"}})]
    assert found == ["(x-|y)+"]
    starts = {text[:4] for text in texts(found)}
    assert {"xyxy", "xxxx", "----", "aaaa", "    "} <= starts
    assert {"abab", "acac", "bcbc"} <= {text[:4] for text in texts(["(ab|a|b)+c"])}
    assert {text[RUN:] for text in texts(found)} == {"!\0", "!\0(x-|y)+"}
