"""Policies: how observations become a distribution over children."""
