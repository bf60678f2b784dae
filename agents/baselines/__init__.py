"""Agents that do not learn, with the same `predict`: what learners are measured against."""
