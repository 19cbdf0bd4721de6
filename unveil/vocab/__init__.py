"""The id space: text tokens, special tokens and image codes; conversations as ids."""
