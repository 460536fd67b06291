"""Denoisers ``D(x, sigma, labels) -> x0``: the protocol, the networks behind it, sampling and model folders.

Import from the submodules; this package imports nothing heavy, so that the command line starts fast.
"""
