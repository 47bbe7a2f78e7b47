"""Everything on one machine: home folder, embedded broker, supervised processes, `doctor`.

Starts the other parts as child processes; knows nothing of jobs but how many wait.
"""
