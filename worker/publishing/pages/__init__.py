"""What is made from all items: the static pages of a gallery; the card of a repository.

A gallery's site is files in a folder or a bucket, which need neither a server nor a script. Knows
no job, record or target: it is given items, and lists what lies in the place.
"""
