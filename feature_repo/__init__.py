"""Feast definitions and the functions that make their tables."""
