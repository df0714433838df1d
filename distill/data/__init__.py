"""Demonstrations: scripted experts, noise and recovery, on-policy relabelling, LeRobot v3 on disk."""
