"""Datasets written here are opened by LeRobot's own reader and the other way round: ``make test-lerobot``."""
