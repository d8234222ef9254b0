"""From raw files to a prepared data set: one folder a corpus, each with `prepare`."""
