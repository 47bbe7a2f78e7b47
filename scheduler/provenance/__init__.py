"""Whether files were made here, and whether they are still as they were made.

`verify` folds what is known of a file into one verdict: its bytes on record, its marks, and the
fingerprints of all samples (`registry`). It works with a record and a store, or with a trust bundle
alone. Must not know the command line.
"""
