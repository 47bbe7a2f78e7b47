"""Near-duplicates: how groups of them are found, and what makes two items of a medium alike.

Knows arrays and files of rows; not how they were read, nor what becomes of a group.
"""
