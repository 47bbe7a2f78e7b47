"""Datasets in: what `genmill dataset` does with the files that users hand over.

Reading files is for `worker.ingest`. Knows no jobs.
"""
