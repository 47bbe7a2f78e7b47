"""A dataset version on disk: arrays and rows, splits, the manifest; and the files of users.

Knows no medium, no file format (`worker.media` reads those), no network and no torch.
"""
