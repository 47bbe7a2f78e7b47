"""A worker's two processes, the parent that Celery runs and the child that works; and a watchdog.

Boot, signals and doorbells. Does not know how a shard is run: that is for `worker.shards`.
"""
