"""A page on which a checkpoint is tried: recordings or words in, ranked images or recordings out."""
