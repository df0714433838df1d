"""The hardware-in-the-loop bench: an arm that obeys physics, a microcontroller, and everything that can go wrong."""
