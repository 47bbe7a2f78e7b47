"""The mathematics of watermarks: pure functions of pixels, samples, tokens and a secret.

`dither` is what pictures and sounds share: how coefficients are marked, and the test. Each medium
adds which coefficients they are and how a cut copy is searched for. `tokens` is the watermark of
texts. Knows no files, no keyring and no torch.
"""
