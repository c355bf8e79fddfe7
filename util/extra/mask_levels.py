"""Gray masks that are not ids: evenly spread levels such as 0/128/255, and smoothed edges."""

from collections.abc import Iterable

import cv2
import numpy as np

MOST_LEVELS = 16
RARE = 0.02  # of the pixels: a value of smoothed edges alone


def spread_levels(values: Iterable[int]) -> bool:
    """Whether 3 to 16 values lie evenly over 0..255, as 0, 128, 255 do."""
    found = sorted(set(values))
    if not 3 <= len(found) <= MOST_LEVELS:
        return False
    return bool(np.abs(found - np.linspace(0, 255, len(found))).max() < 2)


def is_smoothed(label: np.ndarray) -> bool:
    """Whether a mask (H, W) of grays, or of colours 0xRRGGBB, has blurred edges: three or more rare
    values, nearly all pixels of which lie between a darker and a lighter neighbour."""
    values, counts = np.unique(label, return_counts=True)
    rare = values[counts < RARE * label.size]
    if len(rare) < 3:
        return False
    channels = (
        [label] if label.dtype == np.uint8 else [label >> shift & 255 for shift in (16, 8, 0)]
    )
    between = np.zeros(label.shape, bool)
    for channel in channels:
        channel = channel.astype(np.uint8)
        low, high = (morph(channel, np.ones((3, 3), np.uint8)) for morph in (cv2.erode, cv2.dilate))
        between |= (low < channel) & (channel < high)
    return bool(between[np.isin(label, rare)].mean() > 0.9)
