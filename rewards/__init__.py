"""Judging: reward terms, their composition, terminal detection."""
