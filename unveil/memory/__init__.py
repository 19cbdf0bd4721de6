"""Levers that make a model fit: smaller weights."""
