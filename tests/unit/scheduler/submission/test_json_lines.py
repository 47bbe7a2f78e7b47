from pathlib import Path

import pytest

from db.errors import BadInput
from scheduler.submission.json_lines import MAX_LINE_BYTES, read_lines


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf"x"\n')
    assert list(read_lines(str(path))) == ['"x"\n']


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "no lines"), (b"\n \n", "no lines"), (b"x" * (MAX_LINE_BYTES + 1), "line 1 is beyond")],
)
def test_files_beyond_the_limits_are_refused(tmp_path, content, says):
    Path(tmp_path / "a").write_bytes(content)
    with pytest.raises(BadInput, match=says):
        list(read_lines(str(tmp_path / "a")))
