"""The record: every job, shard, artifact, dataset, model, schedule and worker, in SQL.

`tables` holds the nouns, `states` and `moves` how they change, `errors` every error of Genmill.
Functions take a session and leave the commit to their caller. Must not know the other two packages,
files, stores, brokers or the environment: whoever opens a `Database` passes its URL.
"""
