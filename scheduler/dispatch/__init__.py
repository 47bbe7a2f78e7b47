"""The scheduler process: reap leases, finalise jobs, ring, fire schedules, collect garbage.

Any number may run. Knows no command line and no machine; each step is one guarded transaction.
"""
