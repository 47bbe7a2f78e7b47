import pytest

from worker.engine.budget import Budget, Cadence, TimeShare


def due_steps(cadence: Cadence, steps: int) -> list[int]:
    mark, found = (0, 0), []
    for step in range(1, steps + 1):
        due, mark = cadence.due(mark, step, step / steps)
        found += [step] if due else []
    return found


def test_limit_in_steps_gives_progress_by_steps_alone() -> None:
    budget = Budget(200, None)
    assert budget.progress(50, elapsed_s=1e9) == 0.25
    assert budget.spent(50, elapsed_s=1e9) == (50, 200, "steps")


def test_of_two_limits_the_one_further_on_counts() -> None:
    budget = Budget(100, 10.0)
    assert budget.spent(20, elapsed_s=5.0) == (5.0, 10.0, "s")
    assert budget.spent(80, elapsed_s=5.0) == (80, 100, "steps")
    assert budget.progress(3, elapsed_s=12.0) == 1.0


def test_cadence_in_steps_is_due_at_each_multiple() -> None:
    assert due_steps(Cadence(30, 10, 50), 100) == [30, 60, 90]


def test_cadence_without_steps_divides_the_run() -> None:
    assert due_steps(Cadence(0, 4, 50), 1000) == [250, 500, 750, 1000]


@pytest.mark.parametrize(("steps", "expected"), [(120, [50, 100]), (30, [])])
def test_cadence_keeps_its_least_distance_in_a_short_run(steps: int, expected: list[int]) -> None:
    assert due_steps(Cadence(0, 10, 50), steps) == expected


def test_cadence_is_at_least_so_many_steps_apart() -> None:
    assert Cadence(0, 10, 50).steps_apart(400) == 50
    assert Cadence(0, 10, 50).steps_apart(4000) == 400
    assert Cadence(30, 10, 50).steps_apart(4000) == 30


def test_what_takes_long_is_done_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    share, clock = TimeShare(0.1), iter([0.0, 2.0, 30.0, 31.0])
    assert share.allows(elapsed_s=0), "the first cost is unknown"
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with share.spending():
        pass
    assert not share.allows(elapsed_s=39)
    assert share.allows(elapsed_s=40)
    with share.spending():
        pass
    assert share.allows(elapsed_s=40)
