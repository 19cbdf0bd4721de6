"""Names on disk and names in memory, strict."""
