"""One claimed shard: attempt, lease, and what a train or generate shard does.

Joins the engine to the record: the only room that knows both. Knows no processes and no Celery.
"""
