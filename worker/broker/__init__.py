"""The broker as a doorbell: the Celery app, and ringing for shards.

A message carries a shard's id and nothing else. Knows the record and the settings; never what a
shard contains, nor how it is run. Both sides use it, so it loads no torch.
"""
