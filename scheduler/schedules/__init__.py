"""Schedules: cron expressions, due times, and firing what is due.

Enqueues through `scheduler.submission` like any command. Knows no process and no loop.
"""
