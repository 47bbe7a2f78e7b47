"""The asker: the command line, the dispatcher and the schedules. Never imports torch."""
