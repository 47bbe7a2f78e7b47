"""The results of jobs: waiting for them, downloading, verifying and reproducing samples.

Reads the record and the store. Must not change a job; `reproduce` enqueues a new one.
"""
