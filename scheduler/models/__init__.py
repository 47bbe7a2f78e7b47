"""Models in and out: versions exported into folders, folders imported as versions.

Knows no family by name: each declares its files and, where another library's models become its
versions, that library's layout (`worker.networks.family`). Loads no torch.
"""
