"""Benchmarks, run by tool/benchmark.py."""
