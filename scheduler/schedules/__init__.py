"""Schedules: cron rules, the command that is repeated, and firing what is due.

Enqueues through `scheduler.submission`, as a command would. Knows no process and no loop.
"""
