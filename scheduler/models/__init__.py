"""Models in and out: a version exported into a folder, a folder imported as a version.

Knows no family by name: each declares its files and, where another library's models become its
versions, that library's layout (`worker.networks.family`). Loads no torch.
"""
