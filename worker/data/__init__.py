"""A dataset version on disk: its arrays and rows, its splits, its manifest; and the files of users.

Knows no medium and no file format (`worker.media` reads those), no network and no torch.
"""
