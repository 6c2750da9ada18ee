"""Networks as users build them: each kind is converted correctly, or refused with the right reason."""

import re

import pytest
from user_networks import KINDS, result

pytestmark = pytest.mark.slow

REFUSED = {
    "binary layers within `tf.cond`": "layer 'first' is called within .* tf.cond .*: call it directly",
    "an output that does not depend on the image": r"'output_1' of model 'anchors' .* shape is \(1, 2\): leave it out",
    "`gelu` among binary layers": r"layer 'gelu' needs the operator 'Erfc', .*: use tf.nn.gelu\(x, approximate=True\)",
    "`PReLU(shared_axes=[1, 2])` after `Conv3D`": "layer 'slopes': 'tfl.prelu' op .* within the rank 4; replace the",
    "`UpSampling2D(interpolation='bilinear')`, untrained": "inputs of 'second' are so close to 0 .*: train the network",
    "`QuantConv1D(padding='causal')`": "'first': it pads on one side with zeros: use padding=",
    "`QuantLocallyConnected2D`": "layer 'local' is a QuantLocallyConnected2D, which LCE has no 1-bit operator for: use",
    "activations of 0 and 1 (`ste_heaviside`)": "'first': its input is binarized to 0 and 1, .*: use ste_sign",
    "activations of 0 and 1 (`DoReFa(k_bit=1)`)": "'first': its input is binarized to 0 and 1, .*: use ste_sign",
    "sign, then `ZeroPadding2D`": r"'second': its signs are padded with zeros before it: pad in the layer \(padding=",
    "`tf.sign`, which is 0 at 0": "'second': its input is a sign .* = 0, .*: use ste_sign, or",
    "`tf.where(x > 0, 1.0, -1.0)`, which is -1 at 0": "'second': its input is a sign .* = -1, .*: use ste_sign, or",
    "`channels_first`": "'first': its data format is channels_first, .*: build it with channels_last",
    "tokens as numbers (`Embedding`), no images given": r"'words' cannot be run on random images \(.*: give images=",
    "GRU": "layer 'gru' is a loop, which LCE cannot convert: build it with unroll=True",
    "LSTM": "layer 'lstm' is a loop, which LCE cannot convert: build it with unroll=True",
    "integer input (`Embedding`), no images given": "input 'tokens' holds int32 values, .*: give images=",
    "saved inside Larq's `quantized_scope`, AdaBin's kernels": "'first' was saved inside .*: save the model outside",
    "saved inside Larq's `quantized_scope`, half-half kernels": "layer 'first' was saved inside .*: save the model out",
}
CONVOLUTIONS = {"arithmetic with constants between layers": 3, "Larq's tutorial network as it is built, untrained": 3}
TWO = (
    *("`tf.einsum` with a constant", "one layer used twice", "siamese branches", "layers with equal kernels"),
    *("names over 50 characters", "real-valued `Conv1D(dilation_rate=2)`", "`QuantConv1D`"),
    *("`MultiHeadAttention` among binary layers", "choices and parts: `tf.where`, `tf.concat`, `tf.pad`, slices"),
)


@pytest.mark.parametrize("title", KINDS)
def test_each_kind(title, tmp_path):
    found = result(KINDS[title], tmp_path)
    if title in REFUSED:
        assert found.startswith("refused: ")
        assert re.search(REFUSED[title], found), found
        assert "\n" not in found
        assert list(tmp_path.iterdir()) == []
    else:
        # `result` checks that the file is equal to Keras.
        count = CONVOLUTIONS.get(title, 2 if title in TWO else 1)
        assert found == f"accepted, {count} binary convolution{'s' * (count > 1)}"
