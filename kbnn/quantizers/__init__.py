"""A tensor becomes -1 and +1, and a gradient comes back: one technique a file.

Each is a pure function with its gradient beside it (`gradient(x, dy)`), and a thin serialisable class that holds the
parameters. Larq's own are re-exported where they are exactly right.

>>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer=kbnn.quantizers.XNORSign())
"""

from larq.quantizers import ApproxSign, SteSign

from kbnn.quantizers.base import Estimator, KernelQuantizer
from kbnn.quantizers.dorefa import DoReFaSign
from kbnn.quantizers.ede import EDESign
from kbnn.quantizers.estimators import ESTIMATORS, estimator, input_gradient
from kbnn.quantizers.half_half import HalfHalf
from kbnn.quantizers.leaky_ste import LeakySteSign
from kbnn.quantizers.libra import LibraSign
from kbnn.quantizers.magnitude_aware import MagnitudeAwareSign
from kbnn.quantizers.optimal_magnitude import OptimalMagnitude
from kbnn.quantizers.sign_swish import SignSwish
from kbnn.quantizers.standardized import StandardizedSign
from kbnn.quantizers.tanh import TanhSign
from kbnn.quantizers.xnor import XNORSign

__all__ = [
    "ESTIMATORS",
    "ApproxSign",
    "DoReFaSign",
    "EDESign",
    "Estimator",
    "HalfHalf",
    "KernelQuantizer",
    "LeakySteSign",
    "LibraSign",
    "MagnitudeAwareSign",
    "OptimalMagnitude",
    "SignSwish",
    "StandardizedSign",
    "SteSign",
    "TanhSign",
    "XNORSign",
    "estimator",
    "input_gradient",
]
