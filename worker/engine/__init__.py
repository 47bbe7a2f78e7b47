"""The engine trains and samples networks of any family.

It owns the training loop, the budget, checkpoints, validation, previews, memory estimates and the
sampler. It knows no queue, database or store, and no family by name: whoever runs it passes a
`Monitor` and gets files back.
"""
