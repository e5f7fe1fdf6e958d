"""The product room: every product is a Luigi task that wires targets to one algorithm."""
