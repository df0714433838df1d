"""The student's two networks: the frame codec and the world action transformer."""
