"""Readers of the three corpora and of recordings of one's own, and the writer of prepared data sets."""
