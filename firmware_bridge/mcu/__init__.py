"""The microcontroller's firmware: a portable C core, its ports, and the build."""
