"""The method: recording a degradation path and walking it backwards."""
