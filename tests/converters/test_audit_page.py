"""An audit as a page: what it says, and where its lines go."""

import re

import pytest
import sample_networks

from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.audit_page import _lines, _unpacked, page, write_page
from kbnn.errors import UsageError


def test_the_page_is_self_contained(bireal_path, tmp_path):
    write_page(bireal_path, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "bireal.tflite: what it computes with" in html
    assert "2 binary convolutions" in html
    assert not re.search(r'(src|href|srcset)="(?!data:)', html)
    assert "prefers-color-scheme: dark" in html


def test_it_says_what_was_silently_left_in_float():
    import larq as lq

    layer = lq.layers.QuantDense(8, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="culprit")
    html = page(sample_networks.raw(sample_networks.single(layer)), "file").html()
    assert "These layers look 1-bit and are not" in html


def test_lines_go_straight_down_or_around_each_other(bireal_file):
    names = [operator.name for operator in bireal_file.operators]
    assert names[:4] == ["CONV_2D", "LceQuantize", "LceBconv2d", "ADD"]
    lines = _lines(bireal_file)
    # The stem's value goes to the sign in the next row, and around the convolution to the addition.
    assert {(-1, 0, 0, 32), (0, 1, 0, 32), (1, 2, 0, 1), (2, 3, 0, 32), (0, 3, 1, 32)} <= set(lines)
    around = [(start, end, lane) for start, end, lane, _ in lines if lane]
    for k, (start, end, lane) in enumerate(around):
        for other_start, other_end, other in around[k + 1 :]:
            assert lane != other or end <= other_start or other_end <= start


def test_shapes_are_of_values_not_of_words(bireal_file):
    quantize = next(operator for operator in bireal_file.operators if operator.name == "LceQuantize")
    assert quantize.outputs[0].shape == (1, 12, 12, 1)
    assert _unpacked(quantize) == (12, 12, 32)


def test_int8_weights_are_no_steps_of_their_own(bireal, bireal_file):
    stored = sample_networks.deployed(bireal, weights="int8")
    assert len(_lines(stored)) == len(_lines(bireal_file))


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        write_page(tmp_path / "none.tflite", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_any_file_can_be_drawn():
    file = sample_networks.raw(sample_networks.plain())
    assert "LceBconv2d" in page(file, "raw").html()
    assert flatbuffer.parse(file.data).is_lce
