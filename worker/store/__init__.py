"""The object store: blobs under their SHA-256, in a folder or an S3 bucket.

Knows no jobs, datasets or models. Nothing else speaks S3.
"""
