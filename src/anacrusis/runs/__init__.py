"""Runs: one fit each, journaled in a folder, and continued after a crash."""
