"""Names of files as programs of every system pack them."""

import unicodedata

import pytest

from worker.source_files.encodings import decode_names
from worker.source_files.names import clean_name, is_system, leads_out


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        (r"cats\1.png", "cats/1.png"),
        (r"a\b/c\1.png", "a/b/c/1.png"),
        ("./cats/1.png", "cats/1.png"),
        ("cats//1.png", "cats/1.png"),
        ("cats/./1.png", "cats/1.png"),
        (unicodedata.normalize("NFD", "été/Ünïcode.png"), "été/Ünïcode.png"),
        (unicodedata.normalize("NFD", "각/가.png"), "각/가.png"),
        ("name with spaces/1.png", "name with spaces/1.png"),
        ("emoji 😀/1.png", "emoji 😀/1.png"),
    ],
)
def test_a_name_has_slashes_and_composed_characters(given, cleaned):
    assert clean_name(given) == cleaned


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "a/../../x", "/etc/passwd", "a/.."),
        *(r"..\x", r"a\..\..\x", r"C:\x", "C:/x", r"\\server\x"),
    ],
)
def test_names_that_lead_out_are_known(name):
    assert leads_out(name)


@pytest.mark.parametrize("name", ["a..b/c", "...", "a/..b", "c:d", "x/C:/y", "~/a"])
def test_names_that_only_look_like_it_are_not(name):
    assert not leads_out(name)


@pytest.mark.parametrize(
    "name",
    [
        *("__MACOSX/a.png", "a/__MACOSX/b", ".DS_Store", "a/.DS_Store", "a/._b.png"),
        *("Thumbs.db", "a/thumbs.db", "desktop.ini", "a/Desktop.ini", ".git/config"),
        *("@eaDir/a.png", "$RECYCLE.BIN/a.png", "Icon\r", ".ipynb_checkpoints/a.txt"),
    ],
)
def test_files_of_the_system_are_known(name):
    assert is_system(name)


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (["été/1.png", "hiver/2.png"], "utf-8"),
        (["été/1.png", "hiver/2.png"], "cp437"),
        (["été/1.png", "hiver/2.png"], "cp850"),
        (["niño/1.png", "árbol/2.png"], "cp437"),
        (["NIÑO/1.png"], "cp437"),
        ([r"été\1.png", r"hiver\2.png"], "cp437"),
        (["Bären/1.png", "Vögel/2.png"], "cp850"),
        (["Bären/1.png", "Vögel/2.png"], "cp1252"),
        (["São Paulo/ação.png", "pão/2.png"], "cp850"),
        (["犬/1.png", "猫/2.png"], "cp932"),
        (["写真/ねこ1.png", "写真/いぬ2.png"], "cp932"),
        (["ソフト/表.png"], "cp932"),
        (["训练/猫.png", "训练/狗.png"], "gb18030"),
        (["貓/1.png", "狗/2.png"], "big5"),
        (["고양이/1.png", "개/2.png"], "cp949"),
        (["кошки/1.png", "собаки/2.png"], "cp866"),
        (["Кошки/1.png", "Собаки/2.png"], "cp1251"),
        (["plain/1.png"], "ascii"),
    ],
)
def test_the_encoding_of_names_is_told_from_their_characters(names, encoding):
    assert decode_names([name.encode(encoding) for name in names]) == names


def test_names_that_are_utf8_stay_so_among_others():
    assert decode_names(["été.png".encode(), "niño.png".encode("cp437")]) == ["été.png", "niño.png"]


def test_bytes_of_no_encoding_become_some_name():
    assert len(decode_names([bytes(range(128, 256))])[0]) > 0
