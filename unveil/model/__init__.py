"""The three networks; nothing here loops over denoise steps."""
