"""The media: how a sample of image, audio or text is read, checked, encoded and shown.

Knows no family, network or store. Used by the scheduler as well, so it loads no torch, and Pillow
only where it is needed.
"""
