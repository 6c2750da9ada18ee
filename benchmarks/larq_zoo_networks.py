"""Converts and verifies every 1-bit network of larq-zoo; writes `results/larq_zoo.csv`.

    pip install --no-deps larq-zoo==2.4.0 zookeeper==1.4.0 typeguard
    python benchmarks/larq_zoo_networks.py [NETWORK...]

Weights are random, and batch normalization has the statistics of a batch of random images, because trained weights
would have to be downloaded. Conversions are judged layer by layer, with the inputs that each layer has in Keras. End to
end (`median_image_KERNEL`, relative to the range of the outputs), a single flipped sign propagates, just as in Keras if
the image changes by a millionth (`keras_moves_by`).
"""

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
import record

# Imported before larq_zoo, which needs the Keras that kbnn selects.
from kbnn import testing

if TYPE_CHECKING:
    import tensorflow as tf

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
        model = builder(weights=None)
        random = np.random.default_rng(1)
        testing.settle_on(model, random.normal(size=(IMAGES, *model.input_shape[1:])).astype(np.float32))
        row = {"network": name, "input": "x".join(map(str, model.input_shape[1:])), **converted(model)}
        record.append("larq_zoo", [row], seed=0)
        print(row, flush=True)


def converted(model: "tf.keras.Model") -> dict[str, object]:
    """Converts and verifies a network like `convert`, but returns the findings even of a file that it would reject."""
    from kbnn.converters import conversion
    from kbnn.converters.graph.trace import Reference
    from kbnn.converters.passes import Options, deploy
    from kbnn.converters.tflite.audit import audit
    from kbnn.converters.tflite.converter import lower
    from kbnn.converters.verify.verification import compare

    begun, reference, options = time.monotonic(), Reference(model), Options()
    file = lower(deploy(reference, options), options.to_json())
    parity = compare(reference, file, conversion.random_images(model))
    found = audit(file, "the file")
    return {
        "binary_convolutions": len(found.binary_convolutions),
        "silent_fallbacks": len(found.silent_fallbacks),
        "binary_share_of_macs": round(found.binary_share or 0.0, 4),
        "operators": sum(found.operators.values()),
        "tflite_bytes": file.size_bytes,
        "kernel_bits_equal": parity.kernel_bits_equal,
        "largest_layer_difference": f"{max(layer.difference for layer in parity.layers):.1e}",
        "flipped_signs": sum(layer.flips for layer in parity.layers),
        **{
            f"median_image_{run.kernel}": f"{run.median_abs_difference / parity.logit_range:.1e}" for run in parity.runs
        },
        "keras_moves_by": "" if parity.sensitivity is None else f"{parity.sensitivity / parity.logit_range:.1e}",
        "accepted": parity.passed,
        "seconds": round(time.monotonic() - begun, 1),
    }


if __name__ == "__main__":
    main()
