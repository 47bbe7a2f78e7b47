"""Feeds turn a dataset version into training and validation batches of NumPy arrays.

A batch is a pure function of (dataset, seed, step). This package knows no network, no torch, and
not how a dataset was made.
"""
