"""Names from the record or a store become paths in one place."""

import pytest

from db.errors import BadInput
from worker.files import atomic_write, inside, open_no_link, partial_download

HOSTILE = [
    "..", ".", "", "/etc/passwd", "../x", "a/../../x", "a/b", "a\\b", ".hidden", "-rf", "a\0b",
    "a\n", "~", "x" * 300, "é", None, 7, ["a"], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_what_is_no_plain_name_is_no_path(tmp_path, name):
    with pytest.raises(BadInput, match="no plain name") as refused:
        inside(tmp_path, name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a", "model-00001-of-2.safetensors", "0199c0de-7", "A_b.C"])
def test_a_plain_name_lies_in_the_folder(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


def test_a_link_is_not_followed_whatever_its_name(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    folder.mkdir()
    outside.write_text("mine")
    (folder / "weights").symlink_to(outside)
    (folder / ".weights.part").symlink_to(outside)
    with pytest.raises(BadInput, match="is a link"):
        inside(folder, "weights")
    with pytest.raises(OSError, match="symbolic links"), open_no_link(folder / "weights", "wb"):
        pass
    with (
        pytest.raises(OSError, match="symbolic links"),
        partial_download(folder / "weights") as part,
    ):
        part.write(b"theirs")
    with atomic_write(folder / "weights") as file:  # takes the link's place
        file.write(b"theirs")
    assert outside.read_text() == "mine"
