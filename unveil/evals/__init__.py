"""Scores against the oracle."""
