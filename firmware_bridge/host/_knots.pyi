"""Types of the Cython extension built from ``kernels/cpu/_knots.pyx``."""

from firmware_bridge.host.knots import F64

def encode(q: F64, table: F64, compact: bool, /) -> bytes | int: ...
