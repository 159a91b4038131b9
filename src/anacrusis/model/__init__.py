"""Frozen models, and the one place that knows how a prompt enters a network."""
