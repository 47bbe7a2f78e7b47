"""Batches for training: what a step reads from a dataset version, as NumPy arrays.

A batch is a pure function of (dataset, seed, step). Knows no network and no torch, and nothing of
how a dataset was made.
"""
