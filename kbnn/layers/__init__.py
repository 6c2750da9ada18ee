"""Keras layers of binary networks, on Larq's: one a file.

>>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer="ste_sign")
"""

from kbnn.layers.binary_conv2d import BinaryConv2D
from kbnn.layers.binary_dense import BinaryDense
from kbnn.layers.constraints import Positive
from kbnn.layers.zero_pad_channels import ZeroPadChannels

__all__ = ["BinaryConv2D", "BinaryDense", "Positive", "ZeroPadChannels"]
