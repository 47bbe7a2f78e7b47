"""Keys on record: one current one for each purpose and tenant, and all that were before."""

import pytest

from db import keys
from db.errors import NotFound, Refused
from db.keys import NewKey, Purpose


def key(name, purpose=Purpose.WATERMARK, tenant="acme"):
    return NewKey(f"key_{name}", purpose, tenant, None, b"wrapped")


def current(record, purpose=Purpose.WATERMARK, tenant="acme"):
    found = record.run(keys.current, purpose, tenant)
    return found and found.id


def test_a_tenant_has_one_current_key_for_a_purpose(each_record):
    each_record.run(keys.add, key("a"))
    each_record.run(keys.add, key("b", tenant="other"))
    each_record.run(keys.add, key("c", Purpose.SIGNING))
    with pytest.raises(Refused, match="'acme' has a current watermark key already; `genmill key"):
        each_record.run(keys.add, key("d"))
    assert current(each_record) == "key_a"
    assert current(each_record, tenant="nobody") is None


def test_of_two_that_are_made_at_once_one_is_refused(each_record):
    made = each_record.together(
        *((each_record.run, keys.add, key(name)) for name in ("a", "b", "c"))
    )
    assert sorted(type(each).__name__ for each in made) == ["Key", "Refused", "Refused"]


def test_a_rotated_key_stays_and_is_not_rotated_twice(each_record):
    each_record.run(keys.add, key("a"))
    each_record.run(keys.rotate, key("b"), replaced="key_a")
    assert current(each_record) == "key_b"
    old, new = each_record.run(keys.listing)
    assert (old.rotated_at is not None, new.rotated_at) == (True, None)
    with pytest.raises(Refused, match="key_a was rotated or revoked meanwhile"):
        each_record.run(keys.rotate, key("c"), replaced="key_a")
    assert len(each_record.run(keys.listing)) == 2


def test_a_revoked_key_makes_room_and_keeps_its_first_reason(each_record):
    each_record.run(keys.add, key("a"))
    [first] = each_record.run(keys.revoke, ["key_a"], "stolen")
    [again] = each_record.run(keys.revoke, ["key_a"], "another")
    assert (again.revoked_at, again.reason) == (first.revoked_at, "stolen")
    assert current(each_record) is None
    each_record.run(keys.add, key("b"))
    assert current(each_record) == "key_b"


def test_an_unknown_key_is_told_with_the_nearest(record):
    record.run(keys.add, key("abc"))
    with pytest.raises(NotFound, match="no key 'key_abd' \\(did you mean 'key_abc'"):
        record.run(keys.revoke, ["key_abd"], "lost")
