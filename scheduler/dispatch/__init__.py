"""The scheduler process: schedules, expired leases, finished jobs, doorbells, garbage.

Any number may run; each step is one guarded transaction. Knows no command line and no machine.
"""
