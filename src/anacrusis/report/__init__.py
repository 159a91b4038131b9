"""Readers of what runs have written, for people."""
