"""A user's files become a dataset version: their format, what is left out, the manifest.

How a format is read is for `worker.media`. Loads no torch, so that `dataset add` runs without it.
"""
