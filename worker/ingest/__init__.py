"""A user's files into a dataset version: which medium they are, what was rejected, the manifest.

Reading each format is for `worker.media`. Loads no torch, so that `dataset add` runs without it.
"""
