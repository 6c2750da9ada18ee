"""Weight files: round trips, and the errors for mismatched files."""

import functools
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from kbnn import weights
from kbnn.errors import KbnnError, UsageError
from kbnn.models import build


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    return build("tiny")


@pytest.fixture(scope="module")
def path(model: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights.save(model, tmp_path_factory.mktemp("weights"))


def test_files_are_named_by_sha256_and_nothing_else_is_left(path: Path):
    assert path.name == f"tiny-{hashlib.sha256(path.read_bytes()).hexdigest()}.h5"
    assert list(path.parent.iterdir()) == [path]


def test_a_model_named_like_a_path_stays_in_the_folder(tmp_path: Path):
    inputs = tf.keras.Input((4,))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2)(inputs), name="../../elsewhere/x")
    for write in (weights.save, weights.pack):
        assert write(model, tmp_path).parent == tmp_path


def test_the_same_weights_have_the_same_name(model: tf.keras.Model, path: Path, tmp_path: Path):
    assert weights.save(model, tmp_path).name == path.name


def test_loads_into_a_network_built_again(model: tf.keras.Model, path: Path):
    again = build("tiny")
    weights.load(again, path)
    for received, saved in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(received, saved)


def test_keras_itself_loads_the_file(model: tf.keras.Model, path: Path):
    again = build("tiny")
    again.load_weights(path, by_name=True)
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 3}, r"layer 'logits' differs: its kernel is \(64, 10\) in .*build it with classes=10"),
        ({"input_shape": (8, 8, 3)}, r"layer 'stem_conv' differs: its kernel is \(3, 3, 1, 32\) in .*input_shape"),
        ({"width": 2}, "layer 'stem_conv' differs: .*width"),
        ({"method": "xnor"}, "'block1_conv1' has another method: .*MagnitudeAwareSign.* in file .*XNORSign"),
        ({"method": "float"}, "'block1_conv1' has another method: .*real-valued in the model"),
        ({"shortcut_type": "A"}, "layer 'block2_shortcut1_conv' differs in its kernel: file .* has it, the model"),
        ({"name": "resnet20"}, "layer 'stem_conv' differs"),
    ],
    ids=str,
)
def test_errors_name_the_layer_and_the_fix(path: Path, options: dict, message: str):
    other = build(**{"name": "tiny", **options})
    before = other.get_weights()
    with pytest.raises(UsageError, match=message):
        weights.load(other, path)
    for received, kept in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(received, kept)


def test_the_real_valued_twin_starts_the_binary_network():
    twin, binary = build("tiny", method="float"), build("tiny", method="bireal")
    assert weights.transfer(twin, binary) == ()
    kernels = [network.get_layer("block1_conv2").get_weights()[0] for network in (twin, binary)]
    np.testing.assert_array_equal(*kernels)


@pytest.mark.parametrize(("method", "statistic"), [("siman", np.mean), ("bnnplus_r1", np.median)])
def test_learned_scales_start_from_the_loaded_kernels(method: str, statistic: Callable[..., np.ndarray]):
    twin, binary = build("tiny", method="float"), build("tiny", method=method)
    kernel = twin.get_layer("block1_conv2").kernel
    kernel.assign(100 * kernel)
    left = weights.transfer(twin, binary)
    assert "block1_conv2/alpha" in left
    expected = statistic(np.abs(kernel.numpy()), axis=(0, 1, 2))
    np.testing.assert_allclose(binary.get_layer("block1_conv2").alpha, expected, rtol=1e-5)


@pytest.mark.slow
def test_loaded_learned_scales_are_kept():
    source, target = build("tiny", method="siman"), build("tiny", method="siman+ml")
    source.get_layer("block1_conv2").alpha.assign(tf.fill([32], 7.0))
    weights.transfer(source, target)
    np.testing.assert_array_equal(target.get_layer("block1_conv2").alpha, 7.0)


def test_transfer_can_skip_the_classifier(model: tf.keras.Model, path: Path):
    other = build("tiny", classes=3)
    with pytest.raises(UsageError, match=r"skip=\('logits',\)"):
        weights.transfer(path, other)
    assert weights.transfer(path, other, skip=("logits",)) == ()
    np.testing.assert_array_equal(other.get_layer("stem_conv").get_weights()[0], model.get_weights()[0])


def test_transfer_from_a_network_without_a_kernel_names_it():
    with pytest.raises(
        UsageError, match="'block2_shortcut1_conv' differs in its kernel: the model has it, model 'tiny'"
    ):
        weights.transfer(build("tiny", shortcut_type="A"), build("tiny"))


def flipped(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def truncated(data: bytes) -> bytes:
    return data[:3000]


@pytest.mark.parametrize("damage", [flipped, truncated])
def test_a_wrong_sha256_is_refused(path: Path, tmp_path: Path, damage: Callable[[bytes], bytes]):
    (tmp_path / path.name).write_bytes(damage(path.read_bytes()))
    with pytest.raises(KbnnError, match="is damaged: its sha256 differs from the one in its name"):
        weights.load(build("tiny"), tmp_path / path.name)


@pytest.mark.parametrize("content", [b"", b"weights"])
def test_other_files_are_refused(path: Path, tmp_path: Path, content: bytes):
    (tmp_path / "renamed.h5").write_bytes(content or truncated(path.read_bytes()))
    with pytest.raises(KbnnError, match=r"is not a (weight file|readable HDF5 file)"):
        weights.load(build("tiny"), tmp_path / "renamed.h5")


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(KbnnError, match=r"no weight file at '.*gone.h5'"):
        weights.load(build("tiny"), tmp_path / "gone.h5")


@pytest.fixture(scope="module")
def packed(model: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights.pack(model, tmp_path_factory.mktemp("packed"))


def test_damaged_packed_weights_are_one_error(model: tf.keras.Model, packed: Path, tmp_path: Path):
    generator, path, data = np.random.default_rng(0), tmp_path / "damaged.npz", packed.read_bytes()
    refused = 0
    for _ in range(100):
        damaged = bytearray(data)
        for place in generator.integers(0, len(data), 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            weights.start(model, path)
        except KbnnError:
            refused += 1
    assert refused > 50


def hostile_arrays(stored: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    kernel = next(name for name in stored if name.endswith(".int8"))
    scale, plain = kernel.replace(".int8", ".scale"), next(name for name in stored if name.endswith("/bias"))
    return {
        # A product of 40 GB.
        "scales": {kernel: np.zeros((10**5, 1), np.int8), scale: np.zeros((1, 10**5), np.float32)},
        "text": {plain: np.full(stored[plain].shape, "a")},
        "complex": {plain: np.full(stored[plain].shape, 1j)},
        "objects": {plain: np.array([{}], object)},
        "settings": {"kbnn": np.array("[]")},
        "a setting": {"kbnn": np.array('{"stem": 3}')},
    }


def with_arrays(attack: str, packed: Path, path: Path) -> None:
    with np.load(packed) as file:
        stored = dict(file)
    np.savez(path, **(stored | hostile_arrays(stored)[attack]))


def large_array(packed: Path, path: Path) -> None:
    """A header that claims 40 TB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kbnn.npy", header.getvalue())


def large_member(packed: Path, path: Path) -> None:
    """An archive whose directory claims a member of 4 GB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2_000_000))
    monster = bytearray(path.read_bytes())
    directory = monster.rindex(b"PK\x01\x02")
    monster[directory + 24 : directory + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(monster)


# Each writes packed weights that are refused, given sound ones, with what the error says. benchmarks/soak.py uses them.
HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    **{
        attack: (functools.partial(with_arrays, attack), "is not a file of packed weights")
        for attack in ("scales", "text", "complex", "objects", "settings", "a setting")
    },
    "an array of 40 TB": (large_array, "is not a file of packed weights"),
    "a member of 4 GB": (large_member, "is too large: received 4,294,967,294 bytes"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_packed_weights_are_refused(attack: str, model: tf.keras.Model, packed: Path, tmp_path: Path):
    write, message = HOSTILE[attack]
    write(packed, tmp_path / "hostile.npz")
    with pytest.raises(KbnnError, match=message):
        weights.start(model, tmp_path / "hostile.npz")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("layer_names", 3), ("kbnn", np.zeros(3)), ("kbnn", "[1]"), ("kbnn", '{"stem_conv": 3}')],
)
def test_damaged_records_of_weight_files(
    attribute: str, value: object, model: tf.keras.Model, path: Path, tmp_path: Path
):
    (tmp_path / "damaged.h5").write_bytes(path.read_bytes())
    with h5py.File(tmp_path / "damaged.h5", "a") as file:
        file.attrs[attribute] = value
    with pytest.raises(KbnnError, match="is not a weight file"):
        weights.load(model, tmp_path / "damaged.h5")
