"""`genmill demo`: train, generate, schedule and download on real data, on this machine.

Uses what users use, through the same functions as the commands; nothing else depends on it.
"""
