"""The mathematics of masking and flow: tensors in, tensors out, no weights."""
