"""What is done to a user's items on their way into a dataset: checks, repairs, duplicates.

A step sees one item's content at a time and may change or refuse it; duplicates are found in a
second pass over compact fingerprints. Knows no file formats, no media and no torch.
"""
