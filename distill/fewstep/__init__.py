"""Many steps of a teacher in one or two passes of a student."""
