"""Music as text: a language of notes, MIDI files to it and back, and a synthesiser.

Pure functions of bytes and text. Knows no dataset and no model.
"""
