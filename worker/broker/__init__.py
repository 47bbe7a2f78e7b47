"""The broker as a doorbell: the Celery app, and ringing for shards.

A message carries a shard's id and nothing else. Knows the database and the settings, but not what
a shard contains or how it is run. Both sides use it, so it loads no torch.
"""
