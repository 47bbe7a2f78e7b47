"""Models in and out: export to a folder, import from one.

Knows no layout of any family's files: each family declares its own.
"""
