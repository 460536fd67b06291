"""Measurements that are too long for tests; each writes what it found to ``benchmarks/results``."""
