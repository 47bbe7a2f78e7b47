"""Fingerprints: 128 bits of a sample, by which a changed copy of it is found among millions.

One kind for each medium: `pictures` and `sounds` take the lowest frequencies of the middle of a
picture or spectrogram, `texts` uses MinHash. Two fingerprints differ in fewer bits the more alike
two samples are. A fingerprint says what to look at, and proves nothing: what it finds is compared
by content. Knows no store and no record.
"""
