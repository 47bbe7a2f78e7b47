from datetime import UTC, datetime, timedelta

import pytest

from db.errors import Refused
from scheduler.schedules.cron import due_around, next_due

BERLIN = "Europe/Berlin"


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def test_due_times_are_told_in_utc_and_kept_in_the_schedule_s_zone():
    assert next_due("0 3 * * *", BERLIN, at(2026, 1, 10)) == at(2026, 1, 10, 2)
    assert next_due("0 3 * * *", BERLIN, at(2026, 7, 10)) == at(2026, 7, 10, 1)


def test_a_time_that_the_clocks_skip_runs_once_right_after_the_change():
    # at 2:00 on 29 March 2026 Berlin's clocks go on to 3:00, which is 1:00 UTC
    assert next_due("30 2 * * *", BERLIN, at(2026, 3, 28, 12)) == at(2026, 3, 29, 1)
    assert next_due("30 2 * * *", BERLIN, at(2026, 3, 29, 1)) == at(2026, 3, 30, 0, 30)


def test_a_time_that_comes_twice_runs_once():
    # at 3:00 on 25 October 2026 they go back to 2:00: 2:30 is 0:30 UTC and then 1:30 UTC
    first = next_due("30 2 * * *", BERLIN, at(2026, 10, 24, 12))
    assert first == at(2026, 10, 25, 0, 30)
    for minutes in (0, 20, 40, 59):
        later = first + timedelta(minutes=minutes)
        assert next_due("30 2 * * *", BERLIN, later) == at(2026, 10, 26, 1, 30)


def test_an_interval_goes_on_through_both_changes():
    assert next_due("*/15 * * * *", BERLIN, at(2026, 10, 25, 0, 50)) == at(2026, 10, 25, 1)
    assert next_due("*/15 * * * *", BERLIN, at(2026, 3, 29, 0, 50)) == at(2026, 3, 29, 1)


@pytest.mark.parametrize(
    ("word", "due"), [("@hourly", at(2026, 1, 31, 1)), ("@Monthly", at(2026, 2, 1))]
)
def test_the_usual_words_stand_for_expressions(word, due):
    assert next_due(word, "UTC", at(2026, 1, 31)) == due


@pytest.mark.parametrize(
    ("cron", "zone", "says"),
    [
        ("61 * * * *", "UTC", "the minute is '61'; use 0 to 59"),
        ("60 * * * * *", "UTC", "the second is '60'"),
        ("* 24 * * *", "UTC", "the hour is '24'; use 0 to 23"),
        ("0 0 * JUNE *", "UTC", "the month is 'JUNE'; use 1 to 12 or JAN"),
        ("0 0 * * 8", "UTC", "the day-of-week is '8'"),
        ("0 */0 * * *", "UTC", "the hour is '.*/0'"),
        ("0 5-1 * * *", "UTC", "the hour is '5-1'"),
        ("0 0 30 2 *", "UTC", "the day-of-month is '30'.* that the months have"),
        ("* * *", "UTC", "3 fields; write five"),
        ("", "UTC", "0 fields; write five"),
        ("@dayly", "UTC", "did you mean '@daily'"),
        ("9" * 5000 + " * * * *", "UTC", "at most 200"),
        ("0 0 * * *", "Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("0 0 * * *", "../../etc/passwd", "no time zone"),
    ],
)
def test_what_is_no_cron_or_zone_is_refused_with_the_remedy(cron, zone, says):
    with pytest.raises(Refused, match=says):
        next_due(cron, zone, at(2026, 1, 1))


def test_the_times_around_now_are_the_latest_due_time_and_the_next_one():
    hourly = {"cron": "0 * * * *", "timezone": "UTC", "first": at(2026, 1, 1, 3)}
    on_time = due_around(at(2026, 1, 1, 3, 0, 4), **hourly)
    assert on_time == (at(2026, 1, 1, 3), at(2026, 1, 1, 4))
    late = due_around(at(2026, 1, 2, 3, 30), **hourly)
    assert late == (at(2026, 1, 2, 3), at(2026, 1, 2, 4))


def test_years_of_missed_seconds_are_not_gone_through_one_by_one():
    now = at(2026, 1, 1, 0, 0, 30)
    latest, _ = due_around(now, cron="* * * * * *", timezone=BERLIN, first=at(2020, 1, 1))
    assert latest == now


def test_a_rare_schedule_is_found_due_after_a_long_stop():
    found = due_around(at(2026, 6, 1), cron="0 0 1 1 *", timezone="UTC", first=at(2025, 1, 1))
    assert found == (at(2026, 1, 1), at(2027, 1, 1))
