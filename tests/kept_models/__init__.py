"""Small models of every family and format, as they were written, that must load for ever after.

Each folder `CASE-FORMAT` is a version's folder with `samples.json` beside it: what the model made
when it was kept, on which machine, with which settings. `tests/families/test_kept_models.py` makes
the samples again; docs/upgrades.md says when their bytes may change. What is kept is never written
again, because it stands for what users have.
"""
