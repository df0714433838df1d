"""edge-wam: World Action Models on robot arms, from camera pixels to a moving axis, under a watchdog."""

__version__ = "0.1.0"
