"""The weight history: what it counts, that it survives an interruption, and its callback."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn import analysis, datasets, models
from kbnn.analysis.weight_history import WeightHistory
from kbnn.errors import KbnnError


def tiny() -> tf.keras.Model:
    return models.build("tiny", method="bireal")


def negate(model: tf.keras.Model, share: int) -> None:
    """Flips the signs of every `share`-th weight of the first binary layer."""
    kernel = model.get_layer("block1_conv1").kernel.latent_variable
    values = kernel.numpy().ravel()
    values[::share] *= -1
    kernel.assign(values.reshape(kernel.shape))


def recorded() -> tuple[WeightHistory, tf.keras.Model]:
    model, history = tiny(), WeightHistory()
    history.record(model, 0)
    negate(model, 4)
    history.record(model, 1)
    return history, model


def test_flips_are_counted_from_epoch_to_epoch():
    history, _ = recorded()
    assert np.isnan(history.flips[0]).all()
    np.testing.assert_allclose(history.flips[1], [0.25, 0, 0, 0])
    sizes = np.array([9216, 9216, 18432, 36864])
    assert history.mean_flips[1] == pytest.approx(0.25 * sizes[0] / sizes.sum())


def test_histograms_count_every_weight():
    history, _ = recorded()
    np.testing.assert_array_equal(history.histograms.sum(-1), [[9216, 9216, 18432, 36864]] * 2)


def test_repeating_an_epoch_replaces_its_record():
    history, model = recorded()
    negate(model, 4)
    negate(model, 2)
    history.record(model, 1)
    assert history.epochs.tolist() == [0, 1]
    np.testing.assert_allclose(history.flips[1], [0.5, 0, 0, 0])


def test_scales_of_some_stages_only(tmp_path: Path):
    """A stage without learned scales, between two that have them."""
    models_ = {name: models.build("tiny", method=name) for name in ("bireal", "bnnplus_r2")}
    history = WeightHistory()
    for epoch, name in enumerate(("bireal", "bireal", "bnnplus_r2", "bnnplus_r2", "bireal", "bireal", "bnnplus_r2")):
        history.record(models_[name], epoch)
    history.write(tmp_path / "weights.npz")
    scales = WeightHistory.read(tmp_path / "weights.npz").scales["block1_conv1"]
    assert np.isnan(scales).all(1).tolist() == [True, True, False, False, True, True, False]
    np.testing.assert_allclose(scales[2], models_["bnnplus_r2"].get_layer("block1_conv1").alpha)


def test_round_trip(tmp_path: Path):
    history, model = recorded()
    history.write(tmp_path / "weights.npz")
    again = WeightHistory.read(tmp_path / "weights.npz")
    again.record(model, 2)
    assert again.layers == history.layers
    np.testing.assert_allclose(again.flips, [*history.flips, [0, 0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 broken"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(KbnnError, match="cannot read the weight history"):
        WeightHistory.read(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"positive": np.zeros((2, 3))},
        {"flips": np.array([[{}]], object)},
        {"epochs": np.zeros((), int)},
        {"layers": np.zeros(4)},
    ],
    ids=["shape", "object", "scalar", "numbers"],
)
def test_hostile_arrays_are_one_clear_error(changes: dict[str, np.ndarray], tmp_path: Path):
    arrays = {name: np.zeros((1, 1)) for name in ("positive", "flips", "magnitudes", "histograms")}
    np.savez(tmp_path / "weights.npz", **({"layers": np.array(["a"]), "epochs": np.array([0]), **arrays} | changes))
    with pytest.raises(KbnnError, match="cannot read the weight history"):
        WeightHistory.read(tmp_path / "weights.npz")


def events(folder: Path) -> set[str]:
    """The tags that TensorBoard finds in a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return set(found.Tags()["tensors"])


@pytest.mark.slow
def test_the_callback_keeps_its_record_when_training_resumes(tmp_path: Path):
    data = datasets.load("digits")
    images, labels = data.inputs(data.validation), data.validation.labels
    model = tiny()
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for epoch, shown in enumerate((None, images[:16])):
        # A new callback each time, as if training had been interrupted.
        callback = analysis.Diagnostics(tmp_path, shown)
        model.fit(images, labels, initial_epoch=epoch, epochs=epoch + 1, verbose=0, callbacks=[callback])
    history = WeightHistory.read(tmp_path / "weights.npz")
    assert history.epochs.tolist() == [0, 1, 2]
    assert 0 < history.mean_flips[2] < 0.5
    tags = events(tmp_path / "logs" / "analysis")
    assert {"analysis/flip_ratio/block1_conv1", "analysis/weight_entropy/block2_conv2", "analysis/shares"} <= tags
