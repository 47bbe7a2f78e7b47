"""What became of jobs: following them, downloading, verifying and reproducing samples.

Reads the record and the store. Nothing here changes a job, except `reproduce`, which enqueues.
"""
