"""Conversions in threads give the same bytes as sequential ones, and do not disturb other threads."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn.converters import convert

pytestmark = pytest.mark.slow


def networks():
    grouped = sample_networks.single(sample_networks.grouped(64, 2), (4, 4, 64))
    return [grouped, sample_networks.plain(size=4)]


def converted(model, path):
    convert(model, path, np.zeros((2, *model.input_shape[1:]), np.float32))
    return path.read_bytes()


def test_two_threads_give_the_bytes_of_sequential_conversions(tmp_path):
    models = networks()
    expected = [converted(model, tmp_path / f"{k}.tflite") for k, model in enumerate(models)]
    stderr = os.fstat(2)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            [pool.submit(converted, model, tmp_path / f"{k}-{n}.tflite") for n in range(6)]
            for k, model in enumerate(models)
        ]
        found = [[job.result() for job in row] for row in jobs]
    assert found == [[data] * 6 for data in expected]
    assert not tf.config.functions_run_eagerly()
    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (stderr.st_dev, stderr.st_ino)
    assert all("call" not in layer.__dict__ for model in models for layer in model.layers)


def test_training_during_a_conversion(tmp_path):
    model = sample_networks.plain(size=4)
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = np.zeros((64, 4, 4, 3), np.float32), np.zeros(64, int)
    losses = []
    training = threading.Thread(
        target=lambda: losses.extend(model.fit(images, labels, epochs=20, batch_size=8, verbose=0).history["loss"])
    )
    training.start()
    other = sample_networks.single(sample_networks.grouped(64, 2), (4, 4, 64))
    expected = converted(other, tmp_path / "0.tflite")
    training.join()
    assert len(losses) == 20
    assert converted(other, tmp_path / "1.tflite") == expected
