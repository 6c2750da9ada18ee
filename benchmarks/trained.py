"""Evaluates trained runs on the full test set, in Keras and as converted files; writes `results/trained.csv`.

    python benchmarks/trained.py runs/cifar10-resnet20/*

A run with a row is measured again only if its model has changed. The converted file is kept in the run's folder as
`model.tflite`; recipe, history and weight history are copied to `results/histories/NAME/`.
"""

import argparse
import hashlib
import shutil
from pathlib import Path

import numpy as np
import record
import tensorflow as tf

from kbnn import analysis, methods
from kbnn.analysis.diagnostics import FILE as WEIGHTS
from kbnn.analysis.observation import images_of
from kbnn.converters import Description, convert, export_float
from kbnn.converters.tflite.interpreter import run as run_file
from kbnn.precision import in_float32
from kbnn.reproduction import get
from kbnn.training import Run, catalog, evaluate
from kbnn.training.recipe import ModelSettings

TABLE = "trained"
KEPT = ("config.toml", "history.csv", WEIGHTS)
# Larger files are not copied to the repository: the weight history of a large network stays in its run.
LARGEST = 1_000_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    arguments.add_argument("--trained-at", default=record.commit(), help="commit that trained them, if another one")
    arguments.add_argument("--data-dir", type=Path, help="tensorflow-datasets' data folder")
    options = arguments.parse_args()
    for folder in options.runs:
        measure(Run.open(folder), options.trained_at, options.data_dir)


def measure(run: Run, trained_at: str, data_dir: Path | None) -> None:
    """Converts, verifies and evaluates a run, unless it has a row, and copies its small files."""
    digest = _sha256(run.folder / "model.keras")
    known = record.read(TABLE)
    if any(row["keras_sha256"] == digest for row in known):
        print(f"{run.folder}: already measured")
        return
    history = run.history()
    if len(history) < run.recipe.epochs:
        print(f"{run.folder}: {len(history)} of {run.recipe.epochs} epochs, not finished")
        return
    data = run.dataset(data_dir)
    trained = run.model()
    model = in_float32(trained)
    file = run.folder / "model.tflite"
    parity = _write(model, run, file, images_of(data, 32), Description.of(data, run.recipe.name, trained.name))
    tested = evaluate(model, data)
    predicted = _classes(file, data.inputs(data.test))
    row = {
        "network": run.recipe.model.name,
        "method": run.recipe.model.method,
        "dataset": data.name,
        "epochs": run.recipe.epochs,
        "learning_rate": run.recipe.stage[-1].learning_rate,
        "form": _form(run.recipe.model),
        "validation_top1": f"{history[-1]['val_accuracy']:.4f}",
        "keras_top1": f"{tested.top1:.4f}",
        "keras_top5": "" if tested.top5 is None else f"{tested.top5:.4f}",
        "tflite_top1": f"{np.mean(predicted == data.test.labels):.4f}",
        "test_images": data.test.size,
        **parity,
        **_analysis(model, run, images_of(data)),
        "tflite_bytes": file.stat().st_size,
        "tflite_sha256": _sha256(file),
        "keras_bytes": (run.folder / "model.keras").stat().st_size,
        "keras_sha256": digest,
        "trained_by": _training_command(run, trained.layers[1].dtype_policy.name),
        "trained_at": trained_at,
    }
    record.append(TABLE, [row], seed=run.recipe.seed)
    _keep(run)
    print({key: row[key] for key in ("method", "epochs", "keras_top1", "tflite_top1", "tflite_bytes")}, flush=True)


def _form(model: ModelSettings) -> str:
    """The network's options, and its kernel quantizer if that differs from the method's, as written in a recipe."""
    settings = {**model.options, **({} if model.kernels is None else {"kernels": model.kernels})}
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "default"


def _write(
    model: tf.keras.Model, run: Run, file: Path, images: np.ndarray, description: Description
) -> dict[str, object]:
    """Writes the file, and returns the result of its verification on held-out images, if the network is binary."""
    if not methods.get(run.recipe.model.method).is_binary:
        export_float(model, file, description)
        return {}
    parity = convert(model, file, images, description=description).parity
    return {"kernel_bits_equal": parity.kernel_bits_equal, "top1_agreement": parity.top1_agreement}


def _analysis(model: tf.keras.Model, run: Run, images: np.ndarray) -> dict[str, object]:
    """The measures in the papers' claims, over all binary layers and the first 256 held-out images."""
    if not methods.get(run.recipe.model.method).is_binary:
        return {}
    report = analysis.report(model, images)
    mean = {name: np.mean([getattr(layer, name) for layer in report.layers]) for name in _MEANS}
    return {
        "weight_entropy": f"{report.weight_entropy:.5f}",
        "activation_entropy": f"{report.activation_entropy:.5f}",
        **{name: f"{value:.4f}" for name, value in mean.items()},
    }


_MEANS = (
    *("quantization_error", "quantization_error_sign", "quantization_error_median"),
    *("paper_error_sign", "paper_error_median", "optimal_proportion"),
)


def _training_command(run: Run, precision: str) -> str:
    recipe, model = run.recipe, run.recipe.model
    if recipe.name in catalog.names() and catalog.find(recipe.name).model == model:
        return f"kbnn train {recipe.name} --epochs {recipe.epochs} --seed {recipe.seed}"
    for table in ("cifar10-resnet20", "cifar10-larger"):
        for row in get(table).rows():
            if row.recipe.model == model and row.recipe.shortened(recipe.epochs).stage == recipe.stage:
                return (
                    f"kbnn reproduce {table} --rows {row.label} --epochs {recipe.epochs} "
                    f"--seeds {recipe.seed + 1} --precision {precision}"
                )
    return (
        f"kbnn train --model {model.name} --method {model.method} --dataset {recipe.data.name} "
        f"--epochs {recipe.epochs} --seed {recipe.seed}"
    )


def _classes(file: Path, images: np.ndarray) -> np.ndarray:
    parts = np.array_split(images, max(1, len(images) // 1000))
    return np.concatenate([run_file(file.read_bytes(), [part])[0].argmax(-1) for part in parts])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _keep(run: Run) -> None:
    folder = record.RESULTS / "histories" / f"{run.recipe.name}-{run.recipe.epochs}-seed{run.recipe.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run.folder / name).is_file() and (run.folder / name).stat().st_size <= LARGEST:
            shutil.copy(run.folder / name, folder / name)


if __name__ == "__main__":
    main()
