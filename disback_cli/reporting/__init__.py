"""Sample grids, curves and tables."""
