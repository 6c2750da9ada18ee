"""The audit as a page: its contents, and the lines between its steps."""

import re
from pathlib import Path

import attacks
import pytest
import sample_networks
import tensorflow as tf

from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.audit_page import _grouped, _lines, _steps, page, write_page
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.operators import values
from kbnn.errors import UsageError


def test_the_page_is_self_contained(bireal_path: Path, tmp_path: Path):
    write_page(bireal_path, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "bireal.tflite: operators and cost" in html
    assert re.search(r"<dt>binary convolutions</dt><dd>2</dd>", html)
    assert "an estimate and not a latency" in html
    assert not re.search(r'(src|href|srcset)="(?!data:)', html)
    assert "prefers-color-scheme: dark" in html


def test_silent_fallbacks_are_listed():
    import larq as lq

    layer = lq.layers.QuantDense(8, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="culprit")
    html = page(sample_networks.raw(sample_networks.single(layer)), "file")
    assert "These layers look 1-bit and are not" in html


def test_lines_go_straight_down_or_around_each_other(bireal_file: File):
    names = [operator.name for operator in bireal_file.operators]
    assert names[:4] == ["CONV_2D", "LceQuantize", "LceBconv2d", "ADD"]
    lines = _lines(bireal_file)
    # The stem's value goes to the sign in the next row, and around the convolution to the addition.
    assert {(-1, 0, 0, 32), (0, 1, 0, 32), (1, 2, 0, 1), (2, 3, 0, 32), (0, 3, 1, 32)} <= set(lines)
    around = [(start, end, lane) for start, end, lane, _ in lines if lane]
    for k, (start, end, lane) in enumerate(around):
        for other_start, other_end, other in around[k + 1 :]:
            assert lane != other or end <= other_start or other_end <= start


def test_shapes_count_values_not_words(bireal_file: File):
    quantize = next(operator for operator in bireal_file.operators if operator.name == "LceQuantize")
    assert quantize.outputs[0].shape == (1, 12, 12, 1)
    assert values(quantize) == (12, 12, 32)


def test_blocks_end_where_a_single_value_is_alive(bireal_file: File):
    """stem; sign, convolution, addition; the second block with its shortcut; the head."""
    steps = _steps(bireal_file)
    counts = [count for _, count in _grouped(bireal_file, steps)]
    ends = [sum(counts[: k + 1]) for k in range(len(counts))]
    assert ends[-1] == len(steps)
    additions = [k + 1 for k, step in enumerate(steps) if step.name == "ADD"]
    assert set(additions) <= set(ends)


@pytest.mark.slow
def test_blocks_are_named_by_their_layers():
    file = sample_networks.raw(sample_networks.plain())
    assert sum(count for _, count in _grouped(file, _steps(file))) == len(_steps(file))


def test_layers_have_one_name_everywhere(bireal_path: Path, tmp_path: Path):
    write_page(bireal_path, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    for name in ("stem", "conv1", "conv2", "short", "logits"):
        assert f'<span class="name">{name}</span>' in html
        assert f"<td>{name}</td>" in html


def test_int8_weights_are_not_steps_of_their_own(bireal: tf.keras.Model, bireal_file: File):
    stored = sample_networks.deployed(bireal, weights="int8")
    assert len(_lines(stored)) == len(_lines(bireal_file))


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        write_page(tmp_path / "none.tflite", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_any_file_can_be_drawn():
    file = sample_networks.raw(sample_networks.plain())
    assert "LceBconv2d" in page(file, "raw")
    assert flatbuffer.parse(file.data).is_lce


def test_only_lces_words_are_drawn_as_one_bit(bireal_file: File):
    """ARG_MAX writes a class as int32, which is no packed sign."""
    writer = attacks.Writer()
    tensors = [writer.tensor([1, 4]), writer.tensor([1], dtype=2)]
    data = writer.file(tensors, [writer.operator([0], [1])], [writer.builtin("ARG_MAX")], outputs=(1,))
    assert {bits for *_, bits in _lines(flatbuffer.parse(data))} == {32, 0}
    assert {bits for *_, bits in _lines(bireal_file)} == {32, 1}
