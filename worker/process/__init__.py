"""A worker's two processes: the parent that Celery runs, the child that works, and a watchdog.

Boot, signals and doorbells. What a shard is and how it is run belongs to `worker.shards`.
"""
