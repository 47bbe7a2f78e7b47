"""The audit: the invariants of the protocol, checked from outside on a record that may be in use.

Reads the tables, the store and the broker with code of its own, and trusts none that writes them.
Repairs what can be made again. Must not know the command line or the machine.
"""
