"""What the firmware costs on its processor: instructions counted by the emulator, cycles bounded by the manual."""
