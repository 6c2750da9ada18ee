"""Quantizers: each maps a tensor to two levels and defines the gradient that flows back. One technique per file.

Each is a pure function with its gradient, and a thin serializable class that holds the parameters. Larq's own
quantizers are re-exported where they match the papers. Layers, methods and recipes accept any of them by name.

>>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer=kbnn.quantizers.XNORSign())
>>> kbnn.quantizers.names()
"""

from larq.quantizers import ApproxSign, SteSign

from kbnn.quantizers.adabin import AdaptiveSign, EqualizedSign
from kbnn.quantizers.base import Estimator, KernelQuantizer
from kbnn.quantizers.dorefa import DoReFaSign
from kbnn.quantizers.ede import EDESign
from kbnn.quantizers.estimators import binarizer, estimator, input_gradient
from kbnn.quantizers.half_half import HalfHalf
from kbnn.quantizers.leaky_ste import LeakySteSign
from kbnn.quantizers.libra import LibraSign
from kbnn.quantizers.magnitude_aware import MagnitudeAwareSign
from kbnn.quantizers.optimal_magnitude import OptimalMagnitude
from kbnn.quantizers.registry import find, get, kind_of, levels_of, names, register
from kbnn.quantizers.sign_swish import SignSwish
from kbnn.quantizers.standardized import StandardizedSign
from kbnn.quantizers.tanh import TanhSign
from kbnn.quantizers.xnor import XNORSign

__all__ = [
    "AdaptiveSign",
    "ApproxSign",
    "DoReFaSign",
    "EDESign",
    "EqualizedSign",
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
    "binarizer",
    "estimator",
    "find",
    "get",
    "input_gradient",
    "kind_of",
    "levels_of",
    "names",
    "register",
]
