"""The record: every job, shard, artifact, dataset, model, schedule and worker, in SQL.

`tables` holds the nouns, `states` and `moves` how they change, `errors` every error of Genmill.
Functions take a session and leave the commit to their caller. This package must not know the other
two, nor files, stores and brokers, nor the environment: whoever opens a `Database` hands it a URL.
"""
