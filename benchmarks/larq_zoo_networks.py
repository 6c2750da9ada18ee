"""Every 1-bit network of larq-zoo, converted and verified: rows of `results/larq_zoo.csv`.

    pip install --no-deps larq-zoo==2.4.0 zookeeper==1.4.0 typeguard
    python benchmarks/larq_zoo_networks.py [NETWORK...]

With random weights, and the statistics of batch normalization that a batch of random images has: without any, many
values before a sign are exactly 0, which LCE's optimised kernels turn where zeros are padded. Weights that were trained
are a download.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import record

import kbnn  # before larq_zoo, which wants the Keras that kbnn chooses

NETWORKS = (
    *("BinaryAlexNet", "XNORNet", "BiRealNet", "RealToBinaryNet", "BinaryResNetE18"),
    *("BinaryDenseNet28", "BinaryDenseNet37", "BinaryDenseNet37Dilated", "BinaryDenseNet45", "MeliusNet22"),
    *("QuickNetSmall", "QuickNet", "QuickNetLarge"),
)
IMAGES = 8


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    names = arguments.parse_args().networks or NETWORKS
    import larq_zoo

    for name in names:
        builder = getattr(larq_zoo.sota, name, None) or getattr(larq_zoo.literature, name)
        model = settled(builder(weights=None))
        row = {"network": name, "input": "x".join(map(str, model.input_shape[1:])), **converted(model)}
        record.append("larq_zoo", [row], seed=0)
        print(row, flush=True)


def settled(model):
    """A network whose batch normalizations have the statistics of one batch."""
    import tensorflow as tf

    normalizations = [layer for layer in model.submodules if isinstance(layer, tf.keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(np.random.default_rng(1).normal(size=(IMAGES, *model.input_shape[1:])).astype(np.float32), training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum
    return model


def converted(model) -> dict[str, object]:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifact = kbnn.converters.convert(model, Path(folder) / "model.tflite")
        except kbnn.converters.ConversionError as error:
            return {"refused": str(error)}
    audit, parity = artifact.audit, artifact.parity
    return {
        "binary_convolutions": len(audit.binary_convolutions),
        "binary_share_of_macs": round(audit.binary_share, 4),
        "operators": sum(audit.operators.values()),
        "tflite_bytes": artifact.size_bytes,
        "kernel_bits_equal": parity.kernel_bits_equal,
        "largest_layer_difference": f"{max(layer.difference for layer in parity.layers):.1e}",
        "flipped_signs": sum(layer.flips for layer in parity.layers),
        "seconds": round(time.monotonic() - begun, 1),
    }


if __name__ == "__main__":
    main()
