"""Holding an environment against its contract."""
