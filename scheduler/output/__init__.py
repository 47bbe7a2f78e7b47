"""Rows as documents (the contract of `--json`), and documents as tables.

Reads rows that it is given; runs no queries and knows no commands.
"""
