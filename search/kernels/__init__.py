"""Numba kernels of the search: one file per idea, every array checked in Python before a kernel reads it."""
