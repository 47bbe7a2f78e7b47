"""The files that users bring, one module a format: read, checked and labelled, item by item.

Knows neither how a dataset is stored nor what is asked of it. What is not usable is left out with
its reason.
"""
