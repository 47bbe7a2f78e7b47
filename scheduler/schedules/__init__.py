"""Schedules: cron rules, the command that a schedule repeats, and firing what is due.

Enqueues through `scheduler.submission`, as commands do. Must not know which process calls it.
"""
