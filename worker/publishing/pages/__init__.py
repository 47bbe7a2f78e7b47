"""The static pages of a gallery: what is shown of an item, lists of items, filters, feed.

A site is files in a folder or a bucket, which need neither a server nor a script. Knows no job,
record or target: it is given items, and lists what lies in the place.
"""
