"""Padding with channels of zeros."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers import ZeroPadChannels


def test_pads_both_sides_with_the_odd_channel_after():
    padded = ZeroPadChannels(5)(tf.ones((1, 1, 1, 2))).numpy()
    np.testing.assert_array_equal(padded[0, 0, 0], [0, 1, 1, 0, 0])


def test_pads_after():
    padded = ZeroPadChannels(5, side="after")(tf.ones((1, 1, 1, 2))).numpy()
    np.testing.assert_array_equal(padded[0, 0, 0], [1, 1, 0, 0, 0])


def test_config_round_trip():
    config = ZeroPadChannels(5, side="after", name="pad").get_config()
    assert ZeroPadChannels.from_config(config).get_config() == config


def test_unknown_sides_get_suggestions():
    with pytest.raises(UsageError, match="unknown side of pad: received 'afters'; did you mean after"):
        ZeroPadChannels(5, side="afters", name="pad")


def test_more_input_than_output_channels_is_an_error():
    with pytest.raises(UsageError, match="pad cannot pad to 1 channels: received 2"):
        ZeroPadChannels(1, name="pad")(tf.ones((1, 1, 1, 2)))


def test_inputs_of_another_rank_are_refused():
    with pytest.raises(UsageError, match=r"takes \(batch, height, width, channels\): received"):
        ZeroPadChannels(12)(tf.zeros((3, 8)))
