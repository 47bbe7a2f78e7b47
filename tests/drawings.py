"""Pictures that look like handwriting."""

import numpy as np


def strokes(count: int, size: int, channels: int, *, seed: int) -> np.ndarray:
    """Strokes on a dark ground, as digits are, uint8 (N, size, size, channels)."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    images = np.zeros((count, size, size, channels), np.uint8)
    for image in images:
        for _ in range(3):
            across, down, angle = draw.uniform(0.2, 0.8), draw.uniform(0.2, 0.8), draw.uniform(0, 3)
            along = (x - across) * np.cos(angle) + (y - down) * np.sin(angle)
            beside = (y - down) * np.cos(angle) - (x - across) * np.sin(angle)
            stroke = np.exp(-((along / 0.3) ** 2) - (beside / 0.05) ** 2)
            colour = draw.uniform(120, 255, channels)
            np.maximum(image, (stroke[..., None] * colour).astype(np.uint8), out=image)
    return images
