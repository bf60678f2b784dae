"""Learners and baselines that share one way of use."""
