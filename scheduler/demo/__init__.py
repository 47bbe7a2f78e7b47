"""`genmill demo`: the main job on real data, from start to end, on this machine.

Uses what users use, through the same functions as the commands; nothing else depends on it.
"""
