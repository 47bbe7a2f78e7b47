"""One claimed shard: attempt, lease, and what a train or generate shard does.

Joins the engine to the database: the only room that knows both. Knows no processes and no Celery.
"""
