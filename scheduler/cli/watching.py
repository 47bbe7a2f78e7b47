"""Showing jobs while they run: bars on a terminal, a line a change in a pipe, or JSON lines."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from db.tables import Job
    from worker.services import Services

Show = Callable[[list["Job"]], None]


def wait_shown(services: "Services", job_ids: Sequence[str], *, show: str, err: bool) -> None:
    """Wait for the jobs, showing them as `show` says: `json`, `text` or `nothing`.

    Raises `JobFailed`, with each reason, unless all of them succeed.
    """
    from db.errors import JobFailed
    from db.states import JobState
    from scheduler.results.follow import wait

    try:
        with _display(show, err=err) as seen:
            ended = wait(services, job_ids, seen)
    except KeyboardInterrupt:
        click.echo("no longer waiting; the work goes on (genmill job cancel ends it)", err=True)
        raise
    bad = [job for job in ended if job.status != JobState.SUCCEEDED]
    if bad:
        raise JobFailed("\n".join(_reason(job) for job in bad))


def describe(job: "Job") -> str:
    """A job's state in a line, as in `running 120/500 steps, 8s left, loss 1.31`."""
    from scheduler.output.render import clean, to_duration

    parts = [f"{job.status} {describe_progress(job.progress)}".rstrip()]
    if job.progress.get("eta_s") is not None and job.status == "running":
        parts.append(f"{to_duration(job.progress['eta_s'])} left")
    parts += [job.progress.get("note") or "", job.error or ""]
    return clean(", ".join(part for part in parts if part))


def describe_progress(progress: dict[str, Any]) -> str:
    """How far a job is, as in `120/500 steps`; empty where it has not told."""
    if not progress.get("total"):
        return ""
    done, total = (f"{round(progress.get(key, 0), 1):.12g}" for key in ("done", "total"))
    return f"{done}/{total} {progress.get('unit', '')}".rstrip()


def _reason(job: "Job") -> str:
    return f"job {job.id} {job.status}" + (f": {job.error}" if job.error else "")


def _display(show: str, *, err: bool) -> AbstractContextManager[Show]:
    if show == "nothing":
        return nullcontext(lambda jobs: None)
    if show == "json":
        return nullcontext(_on_change(_print_json_line))
    if (sys.stderr if err else sys.stdout).isatty():
        return _Bars(err=err)
    return nullcontext(_on_change(lambda job: click.echo(f"{job.id}  {describe(job)}", err=err)))


def _print_json_line(job: "Job") -> None:
    from scheduler.output.documents import job_document
    from scheduler.output.render import print_json

    print_json(job_document(job), line=True)


def _on_change(tell: Callable[["Job"], None]) -> Show:
    """Tell of a job when its state changes, and at each tenth of its way."""
    told: dict[str, tuple[str, int]] = {}

    def show(jobs: list["Job"]) -> None:
        for job in jobs:
            share = job.progress.get("done", 0) / (job.progress.get("total") or 1)
            now = (job.status, int(share * 10))
            if told.get(job.id) != now:
                told[job.id] = now
                tell(job)

    return show


class _Bars:
    """A bar a job, drawn by rich, which honours NO_COLOR."""

    def __init__(self, *, err: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        text = TextColumn("{task.description}", markup=False)
        after = TextColumn("{task.fields[state]}", markup=False)
        self._progress = Progress(text, BarColumn(), after, console=Console(stderr=err))
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> Show:
        self._progress.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _show(self, jobs: list["Job"]) -> None:
        from scheduler.output.render import to_prefix

        for job in jobs:
            if job.id not in self._bars:
                title = f"{to_prefix(job.id)} {job.kind} {job.model or ''}"
                self._bars[job.id] = self._progress.add_task(title, total=None, state="")
            self._progress.update(
                self._bars[job.id],
                total=job.progress.get("total") or (1 if job.finished_at else None),
                completed=job.progress.get("done", 0) or bool(job.finished_at),
                state=describe(job),
            )
