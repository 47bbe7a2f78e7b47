"""The contracts of a family, `Family` and `Network`, and parts that several families share.

Knows no family by name, no engine and no queue. `family`, `params` and `version_folder` load no
torch, because the scheduler imports them; the other modules may.
"""
