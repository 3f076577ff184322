"""Rows, text and media: everything between a file row and a batch of tensors."""
