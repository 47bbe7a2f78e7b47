"""Output: rows as documents (the contract of `--json`), and documents as text for people.

Must not know commands or queries: it formats the rows that it is given.
"""
