"""Arrays that are computed once and shared: whoever wrote into one would change later readings."""

import pytest

from worker.marks.watermarks import dither, pictures, sounds, tokens

SECRET = b"a secret of a tenant"
KEPT = {
    dither.dithers: (SECRET, "picture", 2),
    pictures.waves: (64,),
    pictures._inverse: (64,),
    pictures._left: (64, 64, 1.0),
    pictures._marked_orders: (),
    sounds._basis: (),
    tokens._all_keys: (SECRET,),
    tokens._one_token: (0.5,),
    tokens._table: (SECRET,),
}


@pytest.mark.parametrize("made", KEPT, ids=lambda made: made.__name__)
def test_a_kept_array_cannot_be_changed(made):
    with pytest.raises(ValueError, match="read-only"):
        made(*KEPT[made])[...] = 0


def test_all_that_is_kept_is_tested():
    found = {
        each
        for module in (dither, pictures, sounds, tokens)
        for each in vars(module).values()
        if hasattr(each, "cache_info")
    }
    assert found == KEPT.keys()
