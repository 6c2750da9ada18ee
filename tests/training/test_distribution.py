"""Training on several devices and in several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sample_runs

from kbnn import layers
from kbnn.training import Recipe, Run, train

# Runs in a separate process: TensorFlow must know its devices and cluster before it computes anything.
WORKER = """
import json
import sys
import kbnn
import tensorflow as tf

replicas, config, output = int(sys.argv[1]), sys.argv[2], sys.argv[3]
tf.config.threading.set_intra_op_parallelism_threads(1)
sys.path.insert(0, sys.argv[4])
import kbnn.training.networks
import sample_runs

kbnn.training.networks.build = sample_runs.network
if replicas > 1:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{k}" for k in range(replicas)])
else:
    strategy = kbnn.training.distribution.choose()
recipe = kbnn.training.Recipe.read(config)


class Medians(tf.keras.callbacks.Callback):
    # Prints this process's statistics of batch medians.

    def on_train_end(self, logs=None):
        layers = [layer for layer in self.model.layers if isinstance(layer, kbnn.layers.BatchMedian)]
        names = ("moving_median", "moving_positive_rms", "moving_negative_rms")
        print(json.dumps([[getattr(layer, name).numpy().tolist() for name in names] for layer in layers]))


kbnn.training.train(recipe, output, resume=True, strategy=strategy, callbacks=[Medians()])
"""


def command(recipe: Recipe, output: Path, replicas: int = 1) -> list[str]:
    config = output.parent / f"{output.name}.toml"
    recipe.write(config)
    return [sys.executable, "-c", WORKER, str(replicas), str(config), str(output), str(Path(__file__).parent)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cooperate(recipe: Recipe, output: Path, workers: int = 2) -> list[list[list[float]]]:
    """Trains a recipe in several processes on this machine; returns the batch median statistics of each."""
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(workers)]}
    processes = []
    for index in range(workers):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
        process = subprocess.Popen(
            command(recipe, output), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * workers, outputs
    return [json.loads(received.splitlines()[-1]) for received, _ in outputs]


def assert_same_curve(run: Run, other: Run, tolerance: float) -> None:
    for mine, theirs in zip(run.history(), other.history(), strict=True):
        for name in ("loss", "val_loss"):
            assert mine[name] == pytest.approx(theirs[name], rel=tolerance), (mine, theirs)


@pytest.fixture(scope="module")
def tiny() -> Recipe:
    """Few and small steps: sums in another order flip signs, so that curves diverge over time.

    A step has so few images that batch medians use all activations, because one device and two would take different
    samples. There is no dropout, because its masks differ between devices.
    """
    recipe = Recipe.of("tiny", "bireal+bma", "digits", epochs=2, batch=64)
    stage = {"stage.1.learning_rate": 1e-2, "stage.1.optimizer": "sgd"}
    # One step per execution: tracing a loop for each replica takes longer than all steps.
    return recipe.changed({**stage, "steps_per_execution": 1, "model.options.width": 1e-9})


@pytest.fixture(scope="module")
def alone(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kbnn.training.networks.build", sample_runs.network)
        return train(tiny, tmp_path_factory.mktemp("runs") / "alone")


@pytest.mark.slow
def test_two_workers_follow_the_curve_of_one_and_agree_on_batch_medians(alone: Run, tiny: Recipe, tmp_path: Path):
    first, second = cooperate(tiny, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert_same_curve(run, alone, 0.005)
    assert run.has("model")
    assert first == second
    assert len(first) == 1
    medians = [layer for layer in alone.model().layers if isinstance(layer, layers.BatchMedian)]
    expected = [[layer.moving_median, layer.moving_positive_rms, layer.moving_negative_rms] for layer in medians]
    np.testing.assert_allclose(first, expected, rtol=0.05, atol=0.01)


@pytest.mark.slow
def test_two_replicas_in_one_process_follow_the_curve_of_one(alone: Run, tiny: Recipe, tmp_path: Path):
    subprocess.run(command(tiny, tmp_path / "two", replicas=2), check=True, timeout=300, capture_output=True)
    assert_same_curve(Run.open(tmp_path / "two"), alone, 0.01)
