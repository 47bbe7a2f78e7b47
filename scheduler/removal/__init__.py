"""Removing jobs, models and datasets: what would go, what holds it, what follows; then doing it.

The record first, in `db`, then the objects that nothing on record names any more. Must not know the
command line.
"""
