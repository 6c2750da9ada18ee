"""Writes `docs/results.md` and its pictures from `results/`: no figure on that page is typed.

python benchmarks/results_page.py
"""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import record

from kbnn import files
from kbnn.analysis import figures
from kbnn.analysis.diagnostics import FILE as WEIGHTS
from kbnn.analysis.pictures import Picture
from kbnn.analysis.weight_history import EDGES, WeightHistory
from kbnn.reproduction.ours import METHODS

DOCS = record.ROOT / "docs"
Row = Mapping[str, str]
ByMethod = Mapping[str, Sequence[Row]]

# What two rows of the table can speak about: claim, row with, row without, measure, whether it should fall.
CLAIMS = (
    ("ML raises the entropy of the weights", "xnor+ml", "xnor", "weight_entropy", False),
    ("ML raises accuracy", "xnor+ml", "xnor", "keras_top1", False),
    ("BMA raises the entropy of the activations", "xnor+bma", "xnor", "activation_entropy", False),
    ("BMA lowers the quantization error", "xnor+bma", "xnor", "quantization_error", True),
    ("BMA raises accuracy", "xnor+bma", "xnor", "keras_top1", False),
    ("ML and BMA together raise accuracy", "xnor+ml+bma", "xnor", "keras_top1", False),
    ("Bi-Real's gradients raise accuracy over BNN's", "bireal", "bnn", "keras_top1", False),
)


def main() -> None:
    rows = [row for row in record.read("trained") if row["network"] == "resnet20"]
    template = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701, it makes Markdown
    page = template.from_string(Path(__file__).with_name("results.md.j2").read_text()).render(
        precisions=sorted({row["trained_by"].split()[-1] for row in rows}),
        budgets=[_budget(epochs, rows) for epochs in sorted({int(row["epochs"]) for row in rows})],
        files=_files(record.read("trained")),
        tested=_tested_claims(record.read("claims")),
    )
    files.write(DOCS / "results.md", page + "\n")


def _budget(epochs: int, rows: Sequence[Row]) -> dict[str, object]:
    found = _by_method(row for row in rows if int(row["epochs"]) == epochs)
    binary = {method: runs for method, runs in found.items() if runs[0]["weight_entropy"]}
    return {
        "epochs": epochs,
        "accuracies": _accuracies(found),
        "trained": len(found),
        "missing": [method for method in METHODS if method not in found],
        "curves": _curves(epochs, found),
        "layers": _layers(binary),
        "claims": _claims(binary),
        "histories": _histories(epochs, binary),
    }


def _by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by method, in the order of the table, seeds ascending."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        found.setdefault(row["method"], []).append(row)
    return {method: found[method] for method in (*METHODS, *(set(found) - set(METHODS))) if method in found}


def _accuracies(found: ByMethod) -> str:
    columns = (
        "method",
        "seeds",
        "validation (%)",
        "test, Keras (%)",
        "test, .tflite (%)",
        "± over seeds",
        ".tflite (kB)",
    )
    return _markdown(columns, (_accuracy(method, rows) for method, rows in found.items()))


def _accuracy(method: str, rows: Sequence[Row]) -> tuple[str, ...]:
    return (
        method,
        " ".join(row["seed"] for row in rows),
        *(f"{100 * _mean(rows, key):.2f}" for key in ("validation_top1", "keras_top1", "tflite_top1")),
        f"{100 * _spread(rows, 'keras_top1'):.2f}" if len(rows) > 1 else "",
        f"{int(rows[0]['tflite_bytes']) / 1000:.1f}",
    )


def _layers(found: ByMethod) -> str:
    columns = ("method", "H of weights", "H of activations", "error", "plain sign's", "batch median's", "optimal code")
    return _markdown(columns, (_layer(method, rows) for method, rows in found.items()))


def _layer(method: str, rows: Sequence[Row]) -> tuple[str, ...]:
    return (
        method,
        *(f"{_mean(rows, key):.4f}" for key in ("weight_entropy", "activation_entropy")),
        *(f"{_mean(rows, f'quantization_error{rule}'):.3f}" for rule in ("", "_sign", "_median")),
        f"{_mean(rows, 'optimal_proportion'):.1%}",
    )


def _claims(found: ByMethod) -> str:
    rows = [
        (claim, *_verdict(found[treated], found[plain], measure, falls))
        for claim, treated, plain, measure, falls in CLAIMS
        if treated in found and plain in found
    ]
    return _markdown(("claim", "with", "without", "difference", "at this budget"), rows) if rows else ""


def _verdict(treated: Sequence[Row], plain: Sequence[Row], measure: str, falls: bool) -> tuple[str, ...]:
    with_, without = _mean(treated, measure), _mean(plain, measure)
    difference = with_ - without
    spreads = [_spread(rows, measure) for rows in (treated, plain) if len(rows) > 1]
    holds = difference < 0 if falls else difference > 0
    if not spreads:
        verdict = f"one seed, in the {'claimed' if holds else 'other'} direction"
    elif abs(difference) < 2 * max(spreads):
        verdict = f"within the seeds' spread (± {max(spreads):.4f})"
    else:
        verdict = f"{'holds' if holds else 'does not hold'} (± {max(spreads):.4f})"
    return f"{with_:.4f}", f"{without:.4f}", f"{difference:+.4f}", verdict


# The same on digits: claim, setting with, setting without, measure, whether it should fall.
TESTED = (
    ("ML raises the entropy of the weights", "xnor+ml", "xnor", "weight_entropy", False),
    ("ML raises accuracy", "xnor+ml", "xnor", "test_top1", False),
    ("BMA raises the entropy of the activations", "xnor+bma", "xnor", "activation_entropy", False),
    ("BMA lowers the quantization error", "xnor+bma", "xnor", "quantization_error", True),
    ("BMA raises accuracy", "xnor+bma", "xnor", "test_top1", False),
    ("ML and BMA together raise accuracy", "xnor+ml+bma", "xnor", "test_top1", False),
    ("Bi-Real's gradients raise accuracy over BNN's", "bireal", "bnn", "test_top1", False),
    ("a trainable β raises accuracy", "bnnplus_r1", "bnnplus_r1, β = 5 fixed", "test_top1", False),
    ("without L2 the optimal code marks more weights", "siman", "siman with L2", "optimal_proportion", False),
    ("without L2 SiMaN is more accurate", "siman", "siman with L2", "test_top1", False),
)


def _tested_claims(rows: Sequence[Row]) -> str:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["setting"], []).append(row)
    verdicts = [
        (claim, *_verdict(found[treated], found[plain], measure, falls))
        for claim, treated, plain, measure, falls in TESTED
        if treated in found and plain in found
    ]
    return _markdown(("claim", "with", "without", "difference", "verdict"), verdicts) if verdicts else ""


def _curves(epochs: int, found: ByMethod) -> list[str]:
    histories = {method: _history(_folder(rows[0]) / "history.csv") for method, rows in found.items()}
    seeds = ", ".join(dict.fromkeys(rows[0]["seed"] for rows in found.values()))
    caption = f"ResNet-20, {epochs} epochs: validation accuracy (5,000 images) and training loss, seed {seeds}."
    return [_picture(f"resnet20-{epochs}-curves", figures.training_curves(histories, caption))]


def _history(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _histories(epochs: int, found: ByMethod) -> list[str]:
    recorded = {
        method: WeightHistory.read(_folder(rows[0]) / WEIGHTS)
        for method, rows in found.items()
        if (_folder(rows[0]) / WEIGHTS).is_file()
    }
    if not recorded:
        return []
    flips = {method: (weights.epochs, weights.mean_flips) for method, weights in recorded.items()}
    caption = f"ResNet-20, {epochs} epochs: share of all binary weights that changed sign within each epoch, seed 0."
    pictures = [_picture(f"resnet20-{epochs}-flips", figures.flip_ratios(flips, caption))]
    for method in ("bnn", "bnnplus_r1"):
        if method in recorded:
            pictures.append(_weights(epochs, method, recorded[method]))
    return pictures


def _weights(epochs: int, method: str, weights: WeightHistory) -> str:
    layer = weights.layers.index("stage2_block2_conv1")
    caption = (
        f"{method}, seed 0: the {weights.histograms[0, layer].sum():,} latent weights of stage2_block2_conv1 after "
        f"each epoch, in units of their mean magnitude; 0 is the untrained network."
    )
    counts = weights.histograms[:, layer]
    drawn = figures.histograms_over_epochs(weights.epochs, counts, EDGES, "w / mean |w|", caption)
    return _picture(f"resnet20-{epochs}-{method}-weights", drawn)


def _files(rows: Sequence[Row]) -> str:
    columns = (
        *("network", "method", "data", "epochs", "seed", "sha256", "bytes"),
        *("test, Keras (%)", "test, .tflite (%)", "kernel bits equal"),
    )
    return _markdown(columns, map(_file, rows))


def _file(row: Row) -> tuple[str, ...]:
    return (
        *(row[key] for key in ("network", "method", "dataset", "epochs", "seed")),
        f"`{row['tflite_sha256'][:12]}`",
        f"{int(row['tflite_bytes']):,}",
        *(f"{100 * float(row[key]):.2f}" for key in ("keras_top1", "tflite_top1")),
        row["kernel_bits_equal"] or "real-valued",
    )


def _picture(name: str, picture: Picture) -> str:
    files.write(DOCS / "pictures" / f"{name}.png", picture.png)
    return f"![{picture.caption}](pictures/{name}.png)\n\n{picture.caption}"


def _folder(row: Row) -> Path:
    name = f"{row['network']}-{row['method']}-{row['dataset']}-{row['epochs']}-seed{row['seed']}"
    return record.RESULTS / "histories" / name


def _mean(rows: Sequence[Row], measure: str) -> float:
    return statistics.fmean(float(row[measure]) for row in rows)


def _spread(rows: Sequence[Row], measure: str) -> float:
    return statistics.stdev(float(row[measure]) for row in rows)


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
