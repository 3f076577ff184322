"""The UnIVAL network; importing ``registration`` makes it known to fairseq."""
