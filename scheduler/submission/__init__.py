"""Submission, the only way to create jobs: arguments, batch lines and prompts in, queued rows out.

Callers parse once (`arguments`, `batches`, `worker.specs.parse_spec`); `pinning` resolves every
name and `checks` it; `enqueue` stores and rings. What cannot run is refused here, by name, before a
row is written. Must not know how jobs are run, nor who submits them: a command or a schedule.
"""
