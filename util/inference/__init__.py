"""Sliding-window prediction: images of any size -> class probabilities or ids."""

from util.inference.predictor import TEST_MODES, SlidingPredictor, build_predictor, window_starts

__all__ = ["TEST_MODES", "SlidingPredictor", "build_predictor", "window_starts"]
