"""The record: every job, shard, artifact, dataset, model and schedule, in SQL.

Imports nothing of ours and reads no environment. See `tables` for the nouns and `states` for
how they change.
"""
