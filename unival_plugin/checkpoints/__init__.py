"""Checkpoint files: safe reading, conversion. Nothing here imports fairseq."""
