"""Turns a model's next-token scores into sequences."""
