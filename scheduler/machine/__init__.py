"""Running everything on one machine: home folder, embedded broker, supervised processes, `doctor`.

Starts the other parts as child processes. Must not know jobs, beyond how many are in each state.
"""
