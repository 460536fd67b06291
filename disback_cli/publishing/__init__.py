"""Publishing: models in the formats other programs read, and the page that goes with them."""
