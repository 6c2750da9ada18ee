"""Every 1-bit network of larq-zoo, converted and verified: rows of `results/larq_zoo.csv`.

    pip install --no-deps larq-zoo==2.4.0 zookeeper==1.4.0 typeguard
    python benchmarks/larq_zoo_networks.py [NETWORK...]

With random weights, and batch normalizations that shift and scale a little: as they are built, many values before a
sign are exactly 0, which LCE's optimised kernels turn where zeros are padded. Weights that were trained are a download.
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
RANGES = {
    "gamma": (0.8, 1.2),
    "beta": (-0.1, 0.1),
    "moving_mean": (-0.1, 0.1),
    "moving_variance": (0.8, 1.25),
    "alpha": (0.2, 0.3),
}


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
    """Parameters per channel as after training, where none has a value at which nothing happens."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        limits = RANGES.get(variable.name.split("/")[-1].split(":")[0])
        if limits is not None:
            variable.assign(random.uniform(*limits, size=variable.shape))
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
