"""Adding datasets: from the files of a user to a version on record.

Reading files is for `worker.ingest`. Knows no jobs.
"""
