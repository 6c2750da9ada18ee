"""Channels of zeros on either side."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers import ZeroPadChannels


def test_pads_half_on_either_side_the_odd_one_behind():
    padded = ZeroPadChannels(5)(tf.ones((1, 1, 1, 2))).numpy()
    np.testing.assert_array_equal(padded[0, 0, 0], [0, 1, 1, 0, 0])


def test_pads_after():
    padded = ZeroPadChannels(5, side="after")(tf.ones((1, 1, 1, 2))).numpy()
    np.testing.assert_array_equal(padded[0, 0, 0], [1, 1, 0, 0, 0])


def test_config_round_trip():
    config = ZeroPadChannels(5, side="after", name="pad").get_config()
    assert ZeroPadChannels.from_config(config).get_config() == config


def test_unknown_sides_offer_near_ones():
    with pytest.raises(UsageError, match="unknown side of pad: received 'afters'; did you mean after"):
        ZeroPadChannels(5, side="afters", name="pad")


def test_fewer_channels_than_it_gets_is_an_error():
    with pytest.raises(UsageError, match="pad cannot pad to 1 channels: received 2"):
        ZeroPadChannels(1, name="pad")(tf.ones((1, 1, 1, 2)))


def test_what_is_no_map_is_refused():
    with pytest.raises(UsageError, match=r"takes \(batch, height, width, channels\): received"):
        ZeroPadChannels(12)(tf.zeros((3, 8)))
