"""What is searched: images or recordings, by recording, image or vector."""
