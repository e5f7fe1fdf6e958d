"""A seeded sky and camera that write a data root as a real survey would fill it."""
