"""Data: image sets and point clouds addressed by index, and the endless sampler that orders them."""
