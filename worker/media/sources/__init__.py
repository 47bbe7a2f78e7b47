"""Readers of users' files, one module a format: they check and label item by item.

What is not usable is left out, with its reason. Knows nothing of how a dataset is stored or used.
"""
