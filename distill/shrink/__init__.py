"""A teacher's weights cut down to a student's size: which blocks, heads and channels stay, and what is inherited."""
