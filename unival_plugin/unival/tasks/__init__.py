"""UnIVAL's tasks: each says what a row means, all else is shared."""
