"""Samples as bytes: the record that each carries, file formats, the files that hold many, sheets.

Bytes depend on the sample and its record alone. Knows no medium, store or dataset.
"""
