"""Every network of the zoo with every method that it takes: converted, audited and compared with Keras.

    .venv/bin/python benchmarks/conversion_matrix.py [PATTERN]

The networks are in their smallest forms (`small_networks.py`). Rows go to `results/conversion_matrix.csv`; pairs that
cannot be converted are listed with the reason, and the status is 1.
"""

import sys
import tempfile
from pathlib import Path

import record
import small_networks

from kbnn import models
from kbnn.converters import convert
from kbnn.errors import KbnnError
from kbnn.layers import BinaryConv2D, BinaryDense


def measure(network: small_networks.Network, method: str) -> dict[str, object]:
    """Converts one pair; the conversion itself fails when a layer is not bitpacked or departs from Keras."""
    model = network.build(method)
    small_networks.settle(model)
    with tempfile.TemporaryDirectory() as folder:
        artifact = convert(model, Path(folder) / "model.tflite", small_networks.images(model, 32))
    binary = sum(isinstance(layer, BinaryConv2D | BinaryDense) for layer in model.layers)
    return {
        "network": network.name,
        "method": method,
        "binary_layers": binary,
        "bitpacked": artifact.audit.operators["LceBconv2d"],
        "float_convolutions": len(artifact.audit.float_convolutions),
        "largest_layer_difference": f"{max(layer.difference for layer in artifact.parity.layers):.1e}",
        "median_logit_difference": f"{artifact.parity.median_abs_difference / artifact.parity.logit_range:.1e}",
        "kernels": " ".join(run.kernel for run in artifact.parity.runs if run.refused is None),
        "operators": " ".join(f"{name}:{count}" for name, count in sorted(artifact.audit.operators.items())),
    }


def main(pattern: str) -> None:
    wanted = set(models.names(pattern))
    failed = []
    for network in (network for network in small_networks.distinct() if network.name in wanted):
        for method in (method for method in small_networks.methods_of(network) if not method.startswith("float")):
            try:
                row = measure(network, method)
            except (KbnnError, ValueError) as error:
                failed.append(f"{network.name} {method}: {error}")
                print(failed[-1], flush=True)
                continue
            print(row, flush=True)
            kept = [
                r for r in record.read("conversion_matrix") if (r["network"], r["method"]) != (network.name, method)
            ]
            record.replace("conversion_matrix", [row], seed=0, kept=kept)
    if failed:
        raise SystemExit("\n".join(["error: these pairs cannot be converted", *failed]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "*")
