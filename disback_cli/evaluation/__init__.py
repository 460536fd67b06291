"""Evaluation: feature extractors, metrics that are exact under any number of processes, and reference statistics."""
