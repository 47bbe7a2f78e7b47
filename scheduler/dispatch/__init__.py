"""The scheduler process: schedules, expired leases, finished jobs, doorbells, garbage.

Any number may run; each step is one guarded transaction. Must not know the command line or the
machine.
"""
