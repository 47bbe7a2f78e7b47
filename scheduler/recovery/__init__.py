"""Backups: a copy of the record and of the store, taken while everything runs, and the way back.

Must not know the command line or the machine.
"""
