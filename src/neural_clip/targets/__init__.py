"""Image encoders, and the embeddings that recordings are mapped to."""
