"""Targets added and checked, and what a publish command names: a job, a batch or a model version.

Knows no kind of target by name; publishing itself is a job, which workers do.
"""
