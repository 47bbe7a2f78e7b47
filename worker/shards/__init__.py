"""One claimed shard: the attempt, the lease, and what a train or generate shard does.

The only room that knows both the engine and the database. Knows no processes and no Celery.
"""
