"""The closed loop: retrained on new digits and promoted, on damaged ones and refused."""

from typing import Any

from tests.e2e.closed_loop import Budget, close_the_loop
from tests.results.machine import DATA, Machine, Result

FULL = Budget(
    family="gan",
    size=28,
    settings=(),
    first_steps=600,
    retrain_steps=1500,
    more=40_000,
    count=2000,
    policy='[primary]\nmetric = "fid"\nmargin = 0.2\n',
)


def loop_on_mnist(machine: Machine) -> list[Result]:
    """The story by commands; the gate decides by the Frechet distance of 2,000 digits."""
    story = close_the_loop(machine.try_to_run, machine.folder, DATA / "mnist", FULL)
    return [
        _decided("40,000 more digits", story.retrained, "promoted"),
        _decided("40,000 damaged digits", story.damaged, "refused"),
        Result(
            "loop: the champion after each chapter, the last a rollback",
            ", ".join(map(str, story.champions)),
            "1, 2, 2, 1",
            story.champions == [1, 2, 2, 1],
        ),
    ]


def _decided(data: str, run: dict[str, Any], expected: str) -> Result:
    """What the gate decided about a retraining, with its numbers."""
    verdict = run["verdict"]
    figure = f"{verdict['outcome']}: {'; '.join(verdict['reasons'])}"
    return Result(
        f"loop: retrained by the schedule on {data}",
        figure,
        expected,
        verdict["outcome"] == expected,
    )
