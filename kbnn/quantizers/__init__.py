"""A tensor becomes -1 and +1, and a gradient comes back: one technique a file.

Each is a pure function with its gradient beside it (`gradient(x, dy)`), and a thin serialisable class that holds the
parameters. Larq's own are re-exported where they are exactly right.

>>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer=kbnn.quantizers.XNORSign())
"""

from larq.quantizers import ApproxSign, SteSign

from kbnn.quantizers.base import KernelQuantizer
from kbnn.quantizers.magnitude_aware import MagnitudeAwareSign
from kbnn.quantizers.xnor import XNORSign

__all__ = ["ApproxSign", "KernelQuantizer", "MagnitudeAwareSign", "SteSign", "XNORSign"]
