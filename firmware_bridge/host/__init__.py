"""The host end of the wire: transports, clock synchronisation, the link, and the emulated microcontrollers."""
