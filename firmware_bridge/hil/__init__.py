"""Tools of the hardware-in-the-loop bench that need no robot: cables that lie, a debugger's hand, traces of orders."""
