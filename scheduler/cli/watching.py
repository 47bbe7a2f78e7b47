"""Showing jobs while they run: bars on a terminal, a line per change in a pipe, or JSON lines.

A single job has a bar for each of its stages. Of more than `MANY` jobs, as in most batches, one bar
or line shows the totals.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from db.tables import Job
    from scheduler.results.waiting import Watched
    from worker.services import Services

MANY = 10  # jobs

Display = Callable[[list["Watched"]], None]


def wait_shown(
    services: "Services",
    job_ids: Sequence[str],
    *,
    show: Literal["json", "text", "nothing"],
    err: bool,
    timeout: timedelta | None = None,
) -> None:
    """Wait for the jobs and show their progress; text goes to stderr with `err`.

    Raises `JobFailed`, with each reason, unless all of them succeed, and `TimedOut` if they have
    not ended within `timeout`.
    """
    from db.errors import JobFailed
    from db.states import JobState
    from scheduler.output.render import first_lines
    from scheduler.results.waiting import wait

    try:
        with _display(show, err=err) as display:
            ended = wait(services, job_ids, display, timeout=timeout)
    except KeyboardInterrupt:
        click.echo("stopped waiting; the jobs continue (`genmill job cancel` ends them)", err=True)
        raise
    reasons = [
        f"job {job.id} {job.status}" + (f": {job.error}" if job.error else "")
        for job in ended
        if job.status != JobState.SUCCEEDED
    ]
    if reasons:
        raise JobFailed("\n".join(first_lines(reasons)))


def describe(watched: "Watched") -> str:
    """A job's state in one line, as in `running 120/500 steps, 8s left, loss 1.31`."""
    status, details = watched.job.status, describe_details(*watched)
    separator = " " if describe_progress(watched.progress) else ", "
    return f"{status}{separator}{details}" if details else str(status)


def describe_totals(watched: Sequence["Watched"]) -> str:
    """The state of many jobs in one line, as in `12/1,000 jobs ended, 4 running, 1 failed`."""
    counts = Counter(str(each.job.status) for each in watched)
    told = [
        f"{counts[state]:,} {state}"
        for state in ("running", "failed", "cancelled")
        if counts[state]
    ]
    return ", ".join([f"{_ended(watched):,}/{len(watched):,} jobs ended", *told])


def _ended(watched: Sequence["Watched"]) -> int:
    return sum(each.job.finished_at is not None for each in watched)


def describe_details(job: "Job", progress: dict[str, Any]) -> str:
    """A job's progress, stages, time left, worker's note, warnings and error, without its state."""
    from scheduler.output.render import clean, to_duration

    left_s = progress.get("eta_s") if job.status == "running" else None
    details = (
        describe_stages(progress),
        f"{to_duration(left_s)} left" if left_s and left_s >= 1 else "",
        progress.get("note"),
        f"waits: {progress['waits_for']}" if progress.get("waits_for") else "",
        *(f"warning: {each}" for each in progress.get("warnings", ())),
        job.error,
    )
    return clean(", ".join(detail for detail in details if detail))


def describe_progress(progress: dict[str, Any]) -> str:
    """How far a job is, as in `120/500 steps`; empty before its first report."""
    if not progress.get("total"):
        return ""
    done, total = (f"{round(progress.get(key, 0), 1):.12g}" for key in ("done", "total"))
    if progress.get("unit") == "%":
        return f"{done}%"
    return f"{done}/{total} {progress.get('unit', '')}".rstrip()


def describe_stages(progress: dict[str, Any]) -> str:
    """How far a job and its stages are, as in `120/500 steps, validating 3/20 batches`."""
    stages = (
        f"{stage['name']} {describe_progress(stage)}".rstrip()
        for stage in progress.get("stages", ())
    )
    return ", ".join(each for each in (describe_progress(progress), *stages) if each)


def _display(show: str, *, err: bool) -> AbstractContextManager[Display]:
    from scheduler.output.documents import job_document
    from scheduler.output.render import print_json

    if show == "nothing":
        return nullcontext(lambda jobs: None)
    if show == "json":
        return nullcontext(_on_change(lambda job: print_json(job_document(*job), line=True)))
    if (sys.stderr if err else sys.stdout).isatty():
        return _Bars(err=err)
    each = _on_change(lambda it: click.echo(f"{it.job.id}  {describe(it)}", err=err))
    totals = _on_totals(lambda line: click.echo(line, err=err))
    return nullcontext(lambda jobs: (totals if len(jobs) > MANY else each)(jobs))


def _on_totals(show: Callable[[str], None]) -> Display:
    """Call `show` at each tenth of many jobs that has ended, and when the first did not succeed."""
    shown: set[tuple[int, bool]] = set()

    def display(watched: list["Watched"]) -> None:
        failed = any(each.job.status in {"failed", "cancelled"} for each in watched)
        now = (_ended(watched) * 10 // len(watched), failed)
        if now not in shown:
            shown.add(now)
            show(describe_totals(watched))

    return display


def _on_change(show: Callable[["Watched"], None]) -> Display:
    """Call `show` at a change of a job's state, stages or wait, and each tenth of its progress."""
    shown: dict[str, tuple[object, ...]] = {}

    def display(watched: list["Watched"]) -> None:
        for each in watched:
            share = each.progress.get("done", 0) / (each.progress.get("total") or 1)
            names = [stage["name"] for stage in each.progress.get("stages", ())]
            waits_for = each.progress.get("waits_for")
            now = (each.job.status, names, waits_for, int(share * 10))
            if shown.get(each.job.id) != now:
                shown[each.job.id] = now
                show(each)

    return display


class _Bars:
    """A progress bar for each job, or one for many, drawn by rich, which honours NO_COLOR.

    Below that of a single job is one for each of the stages that it has come to. Warnings follow.
    """

    def __init__(self, *, err: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        text = TextColumn("{task.description}", markup=False)
        after = TextColumn("{task.fields[state]}", markup=False)
        self._progress = Progress(text, BarColumn(), after, console=Console(stderr=err))
        self._err = err
        self._bars: dict[str, Any] = {}
        self._warnings: dict[str, Sequence[str]] = {}  # by job
        self._stages: dict[str, dict[str, Any]] = {}  # by name, as they were shown last

    def __enter__(self) -> Display:
        self._progress.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        from scheduler.output.render import clean

        self._progress.stop()
        for job_id, warnings in self._warnings.items():
            for warning in warnings:
                click.echo(f"warning of job {job_id}: {clean(warning)}", err=self._err)

    def _show(self, watched: list["Watched"]) -> None:
        if len(watched) > MANY:
            self._update("all", "", len(watched), _ended(watched), describe_totals(watched))
            return
        if len(watched) > 1:
            for each in watched:
                self._show_one(each)
            return
        (one,) = watched
        progress = one.progress
        own = progress | {"stages": ()}
        self._show_one(one._replace(progress=own))
        self._show_stages({"training": own}, progress.get("stages", ()))

    def _show_stages(
        self, counted: dict[str, dict[str, Any]], stages: Sequence[dict[str, Any]]
    ) -> None:
        """Show the stages that are under way; those before them are done.

        Some are `counted` by the progress of the whole job.
        """
        now = {stage["name"]: counted.get(stage["name"], {}) | stage for stage in stages}
        self._stages |= now
        for name, latest in self._stages.items():
            total, over = latest.get("total"), name not in now
            stage = latest | ({"done": total} if over else {})
            done = stage.get("done") or 0
            whole, part = (1, 1) if over and not total else (total, done)
            self._update(f"stage {name}", f"  {name}", whole, part, describe_progress(stage))

    def _show_one(self, watched: "Watched") -> None:
        from scheduler.output.render import to_prefix

        job, progress = watched
        title = f"{to_prefix(job.id)} {job.kind} {job.model or ''}"
        total = progress.get("total") or (1 if job.finished_at else None)
        done = progress.get("done", 0) or bool(job.finished_at)
        self._warnings[job.id] = progress.get("warnings", ())
        told = watched._replace(progress=progress | {"warnings": ()})  # they would take all room
        self._update(job.id, title, total, done, describe(told))

    def _update(self, key: str, title: str, total: float | None, done: float, state: str) -> None:
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(title, total=None, state="")
        self._progress.update(self._bars[key], total=total, completed=done, state=state)
