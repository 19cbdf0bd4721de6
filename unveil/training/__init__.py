"""How a model learns: one loop, several objectives."""
