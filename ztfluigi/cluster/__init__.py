"""Running the graph on more than one machine."""
