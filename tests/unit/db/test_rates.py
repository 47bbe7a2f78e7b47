"""Rates are learnt from measurements, of which recent ones count most."""

from db import rates


def test_a_rate_moves_towards_what_was_measured_last(each_record):
    assert each_record.run(rates.of, 7) is None
    for measured, known in ((100.0, 100.0), (200.0, 150.0), (200.0, 175.0)):
        each_record.run(rates.learn, 7, measured)
        assert each_record.run(rates.of, 7) == known


def test_work_of_different_keys_has_different_rates(record):
    record.run(rates.learn, -(2**63), 1.0)
    record.run(rates.learn, 2**63 - 1, 2.0)
    assert [record.run(rates.of, key) for key in (-(2**63), 2**63 - 1)] == [1.0, 2.0]
