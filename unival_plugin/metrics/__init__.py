"""Scores of generated captions. Nothing is imported here: each module stands for itself."""
