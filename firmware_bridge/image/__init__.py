"""Signed firmware images: what the bootloader (``mcu/boot``) checks, made and read on the host."""
