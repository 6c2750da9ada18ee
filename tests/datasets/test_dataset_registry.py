"""Data sets by name."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn import datasets
from kbnn.datasets import Transform
from kbnn.errors import KbnnError, UsageError

PREPARED = Path("~/tensorflow_datasets/cifar10").expanduser()

needs_cifar10 = pytest.mark.skipif(not PREPARED.is_dir(), reason=f"CIFAR-10 is not prepared in {PREPARED}")


def test_names():
    assert datasets.names() == ["cifar10", "cifar100", "digits", "imagenet2012", "imagenette", "svhn_cropped"]


def test_an_unknown_name_gets_suggestions():
    with pytest.raises(UsageError, match="unknown data set: received 'cifar'; did you mean cifar10 or cifar100"):
        datasets.load("cifar")


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range(share: float):
    with pytest.raises(UsageError, match="validation share is out of range"):
        datasets.load("digits", validation=share)


def test_no_validation():
    data = datasets.load("digits", validation=0)
    assert (data.train.size, data.validation.size) == (1437, 0)
    assert data.inputs(data.validation).shape == (0, 8, 8, 1)


# One that is downloaded, and one that is fetched by hand.
@pytest.mark.parametrize("name", ["cifar100", "imagenet2012"])
def test_a_data_set_that_is_not_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
):
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(KbnnError, match=rf"data set '{name}' is not prepared in .* and cannot be downloaded"):
        datasets.load(name, data_dir=tmp_path)
    assert capsys.readouterr().out == ""


@needs_cifar10
@pytest.mark.slow
def test_cifar10():
    data = datasets.load("cifar10", transform=Transform(pad=4, flip=True))
    assert (data.train.size, data.validation.size, data.test.size) == (45000, 5000, 10000)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    # The usual constants: 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616.
    np.testing.assert_allclose(np.divide(data.normalization.mean, 255), [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(np.divide(data.normalization.std, 255), [0.2470, 0.2435, 0.2616], atol=1e-4)
    images, labels = next(iter(data.epochs(128, seed=0)))
    assert images.shape == (128, 32, 32, 3)
    assert images.dtype == tf.float32
    assert labels.shape == (128,)
