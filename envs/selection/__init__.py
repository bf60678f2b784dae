"""Choosing how to optimise a PyTorch module, on real measurements."""
