"""The files of users: a folder, a zip, a tar or a single file, read member by member.

What becomes of each member is decided here, for every medium: `names` cleans its name and knows
system files, `members` holds the limits, `folders`, `zips` and `tars` find what can be opened, and
`unsupported` says what a file of another kind is. Knows no medium and no dataset.
"""
