"""What a page of samples shows to be plainly wrong with a training: noise, collapse, copies.

A page is a few dozen samples, so only gross faults show; an evaluation measures the rest. The
limits were measured: see `docs/training.md`.
"""
