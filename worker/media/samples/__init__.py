"""Samples as bytes: records, file formats, containers of many samples, and sheets that show them.

Bytes depend on the sample and its record alone. Knows no medium, store or dataset.
"""
