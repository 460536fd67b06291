"""Distil a diffusion teacher into a one-step generator by distribution backtracking (DisBack, arXiv 2408.15991)."""

__version__ = "0.1.0"
