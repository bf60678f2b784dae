"""Playing: environments as batches of lanes, and episodes collected from them."""
