"""Pieces that more than one network uses."""
