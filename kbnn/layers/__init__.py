"""Keras layers of binary networks, based on Larq's.

>>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer="magnitude_aware")
"""

from kbnn.layers.activation_scale import ActivationScale
from kbnn.layers.batch_median import BatchMedian
from kbnn.layers.biased_prelu import BiasedPReLU
from kbnn.layers.binary_conv2d import BinaryConv2D
from kbnn.layers.binary_dense import BinaryDense
from kbnn.layers.channel_shift import ChannelShift
from kbnn.layers.channel_shuffle import ChannelShuffle
from kbnn.layers.group_aware_normalization import GroupAwareNormalization
from kbnn.layers.group_normalization import GroupNormalization
from kbnn.layers.prelu import Maxout, PReLU
from kbnn.layers.rprelu import RPReLU
from kbnn.layers.zero_pad_channels import ZeroPadChannels

__all__ = [
    "ActivationScale",
    "BatchMedian",
    "BiasedPReLU",
    "BinaryConv2D",
    "BinaryDense",
    "ChannelShift",
    "ChannelShuffle",
    "GroupAwareNormalization",
    "GroupNormalization",
    "Maxout",
    "PReLU",
    "RPReLU",
    "ZeroPadChannels",
]
