"""A user's files into a dataset version: which format they are, what was left out, the manifest.

Reading each format is for `worker.media`. Loads no torch, so that `dataset add` runs without it.
"""
