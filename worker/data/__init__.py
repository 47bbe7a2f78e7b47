"""A dataset version on disk: its arrays and rows, split, captions, manifest and source files.

Knows no medium's format (`worker.media` reads those), no network and no torch.
"""
