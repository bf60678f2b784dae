"""The token tree and the environments that walk it."""
