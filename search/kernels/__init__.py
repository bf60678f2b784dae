"""Numba kernels of the search: one file an idea, every array checked in Python before a kernel reads it."""
