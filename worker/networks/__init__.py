"""What families are made of: the contracts `Family` and `Network`, and parts that several share.

Knows no family by name, no engine and no queue. `family`, `params` and `text_sampling` load no
torch, for the scheduler reads them; everything else here may.
"""
