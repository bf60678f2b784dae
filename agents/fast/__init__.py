"""Passes written by hand: the same numbers as the readable code, without its bookkeeping."""
