"""Handing on what was made: trees, agents, runs and optimisation records, through a hub."""
