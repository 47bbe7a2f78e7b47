"""Music as text: a language of notes, conversion from and to MIDI, and a synthesiser.

Pure functions of bytes and text. Knows no medium, no dataset and no model.
"""
