"""Output: rows as documents (the contract of `--json`), documents as text for people.

Everything that a command prints goes through here. Reads rows that it is given: it must know no
query and no command.
"""
