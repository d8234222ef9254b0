"""A prepared data set: its facts, rows, reader, writer, card and the `doctor` that examines it."""
