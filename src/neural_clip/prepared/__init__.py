"""A prepared data set: its facts, rows, reader, writer, card and the guard that examines it (`doctor`)."""
