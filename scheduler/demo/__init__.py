"""`genmill demo`: train, generate, schedule and download on real data, on this machine.

Calls the same functions as the commands, and nothing below them. Nothing else depends on it.
"""
