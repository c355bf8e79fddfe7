"""Measurements of this project on the machine at hand; tool/benchmark.py runs them."""
