"""The one door for jobs: arguments, prompts and batch lines in; pinned specs and rows out.

Refuses what cannot run, by name, before a row is written. Knows nothing of how jobs are run.
"""
