"""Writes `docs/results.md` and its pictures from `results/`, so that no figure on that page is typed by hand.

python benchmarks/results_page.py
"""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import record

from kbnn import files
from kbnn.analysis import figures
from kbnn.analysis.diagnostics import FILE as WEIGHTS
from kbnn.analysis.over_epochs import over_epochs
from kbnn.analysis.pictures import Picture
from kbnn.analysis.weight_history import WeightHistory
from kbnn.reproduction.ours import EPOCHS, LARGER, METHODS
from kbnn.training import Recipe

DOCS = record.ROOT / "docs"
Row = Mapping[str, str]
ByMethod = Mapping[str, Sequence[Row]]
ByModel = Mapping[str, Sequence[Row]]
# A claim about two rows of a table: its text, the row with the technique, the row without, the measure, and whether the
# measure should fall.
Claim = tuple[str, str, str, str, bool]

CLAIMS: tuple[Claim, ...] = (
    ("ML raises the entropy of the weights", "xnor+ml", "xnor", "weight_entropy", False),
    ("ML raises accuracy", "xnor+ml", "xnor", "keras_top1", False),
    ("BMA raises the entropy of the activations", "xnor+bma", "xnor", "activation_entropy", False),
    ("BMA lowers the quantization error (the paper's levels)", "xnor+bma", "xnor", "quantization_error", True),
    ("BMA raises accuracy", "xnor+bma", "xnor", "keras_top1", False),
    ("ML and BMA together raise accuracy", "xnor+ml+bma", "xnor", "keras_top1", False),
    ("Bi-Real's gradients raise accuracy over BNN's", "bireal", "bnn", "keras_top1", False),
)


# Epochs planned for the methods with the best validation accuracy.
LONG = 60


def main() -> None:
    trained = record.read("trained")
    # Methods are compared with the common schedule; our own recipes have a separate section.
    rows = [row for row in trained if row["network"] == "resnet20" and not _is_best(row)]
    template = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701, it makes Markdown
    page = template.from_string(Path(__file__).with_name("results.md.j2").read_text()).render(
        precisions=sorted({row["trained_by"].split()[-1] for row in rows}),
        budgets=[_budget(epochs, rows) for epochs in sorted({int(row["epochs"]) for row in rows}, reverse=True)],
        larger=_larger(trained),
        long_runs=_long_runs(record.RESULTS / "histories"),
        precision=_precision(record.read("precision")),
        files=_files(trained),
        tested=_tested_claims(record.read("claims")),
        remaining=_remaining(trained),
    )
    files.write(DOCS / "results.md", page.rstrip() + "\n")


def _is_best(row: Row) -> bool:
    return row["trained_by"].startswith("kbnn train best-")


def _long_runs(histories: Path) -> list[dict[str, str]]:
    """The progress and validation accuracy of the runs of our own recipes, finished or not."""
    found = []
    for folder in sorted(histories.glob("best-*")):
        recipe = Recipe.read(folder / "config.toml")
        with (folder / "history.csv").open(newline="") as file:
            epochs = list(csv.DictReader(file))
        last = [100 * float(row["val_accuracy"]) for row in epochs[-3:]]
        found.append(
            {
                "recipe": recipe.name,
                "seed": str(recipe.seed),
                "done": str(len(epochs)),
                "epochs": str(recipe.epochs),
                "best": f"{max(100 * float(row['val_accuracy']) for row in epochs):.1f}",
                "mean": f"{statistics.mean(last):.1f}",
                "training": f"{100 * float(epochs[-1]['accuracy']):.1f}",
                "rate": f"{float(epochs[-1]['learning_rate']):.1e}",
            }
        )
    return found


def _remaining(trained: Sequence[Row]) -> dict[str, Sequence[str]]:
    """The planned trainings that are missing: methods at `EPOCHS`, the best ones at `LONG`, and larger networks."""
    done = {(row["network"], row["method"], int(row["epochs"])) for row in trained}
    return {
        "common": [method for method in METHODS if ("resnet20", method, EPOCHS) not in done],
        "long": [method for method in _best(trained) if ("resnet20", method, LONG) not in done],
        "larger": [f"{model}-{method}" for model, method in LARGER if not _runs_of(model, method, trained)],
    }


def _best(trained: Sequence[Row]) -> list[str]:
    """The methods to train longer: the two binary ones with the best validation accuracy, and ML+BMA's pair."""
    epochs = max(int(row["epochs"]) for row in trained if row["network"] == "resnet20" and int(row["epochs"]) <= EPOCHS)
    same = (row for row in trained if row["network"] == "resnet20" and int(row["epochs"]) == epochs)
    binary = sorted((row for row in same if row["weight_entropy"]), key=lambda row: -float(row["validation_top1"]))
    two = list(dict.fromkeys(row["method"] for row in binary))[:2]
    return list(dict.fromkeys([*two, "xnor", "xnor+ml+bma"]))


def _runs_of(model: str, method: str, trained: Sequence[Row]) -> list[Row]:
    return [row for row in trained if (row["network"], row["method"]) == (model, method)]


def _larger(trained: Sequence[Row]) -> dict[str, str]:
    """A table of the larger networks and their curves; empty if none was trained."""
    found = {model: runs for model, method in LARGER if (runs := _runs_of(model, method, trained))}
    if not found:
        return {}
    return {"table": _larger_table(found), "curves": _curves("larger", "Larger networks", found)}


def _larger_table(found: ByModel) -> str:
    named, accuracies = ("network", "method", "epochs", "seed"), ("validation_top1", "keras_top1", "tflite_top1")
    lines = [
        (
            *(row[key] for key in named),
            *(f"{100 * float(row[key]):.2f}" for key in accuracies),
            f"{int(row['tflite_bytes']) / 1000:.1f}",
            row["trained_at"],
        )
        for rows in found.values()
        for row in rows
    ]
    return _markdown(
        (*named, "validation (%)", "test, Keras (%)", "test, .tflite (%)", ".tflite (kB)", "commit"), lines
    )


def _precision(rows: Sequence[Row]) -> dict[str, object]:
    """Compares bfloat16 with float32: accuracies by seed, and the difference of the means relative to the spread.

    Uses the seeds that were trained in both precisions, if there are at least two of them.
    """
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        if len([other for other in rows if other["seed"] == row["seed"]]) == 2:
            found.setdefault(row["policy"], []).append(row)
    if not found or min(map(len, found.values())) < 2:
        return {}
    columns = ("trained in", "seeds", "test, in float32 (%)", "mean (%)", "± over seeds", "test, as trained (%)")
    verdict = judge(found["mixed_bfloat16"], found["float32"], "test_top1_in_float32", False)
    return {
        "table": _markdown(columns, (_precision_line(policy, runs) for policy, runs in found.items())),
        "difference": f"{100 * float(verdict.cells[2]):+.2f}",
        "within": "within" in verdict.outcome,
        **{key: rows[0][key] for key in ("method", "epochs", "command")},
    }


def _precision_line(policy: str, runs: Sequence[Row]) -> tuple[str, ...]:
    return (
        policy,
        " ".join(row["seed"] for row in runs),
        " ".join(f"{100 * float(row['test_top1_in_float32']):.2f}" for row in runs),
        f"{100 * _mean(runs, 'test_top1_in_float32'):.2f}",
        f"{100 * _spread(runs, 'test_top1_in_float32'):.2f}" if len(runs) > 1 else "",
        " ".join(f"{100 * float(row['test_top1']):.2f}" for row in runs),
    )


def _budget(epochs: int, rows: Sequence[Row]) -> dict[str, object]:
    found = _by_method(row for row in rows if int(row["epochs"]) == epochs)
    binary = {method: runs for method, runs in found.items() if runs[0]["weight_entropy"]}
    return {
        "epochs": epochs,
        "accuracies": _accuracies(found),
        "trained": len(found),
        "runs": sum(map(len, found.values())),
        "curves": _curves(f"resnet20-{epochs}", f"ResNet-20, {epochs} epochs", found),
        "layers": _layers(binary),
        "networks": len(binary),
        "better_by_median": sum(_loses_less_by_median(rows[0]) for rows in binary.values()),
        "claims": _claims(binary),
        "histories": _histories(epochs, binary),
    }


def _by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by method, in the order of the table, with ascending seeds."""
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
        "commit",
    )
    return _markdown(columns, (_accuracy(method, rows) for method, rows in found.items()))


def _accuracy(method: str, rows: Sequence[Row]) -> tuple[str, ...]:
    return (
        method,
        " ".join(row["seed"] for row in rows),
        *(f"{100 * _mean(rows, key):.2f}" for key in ("validation_top1", "keras_top1", "tflite_top1")),
        f"{100 * _spread(rows, 'keras_top1'):.2f}" if len(rows) > 1 else "",
        f"{int(rows[0]['tflite_bytes']) / 1000:.1f}",
        " ".join(dict.fromkeys(row["trained_at"] for row in rows)),
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


def _loses_less_by_median(row: Row) -> bool:
    return float(row["quantization_error_median"]) < float(row["quantization_error_sign"])


def _claims(found: ByMethod) -> dict[str, object]:
    return _judged(CLAIMS, found, "at this budget")


def _judged(claims: Sequence[Claim], found: ByMethod, heading: str) -> dict[str, object]:
    """Claims as a table and by outcome, and the claims for which runs are missing."""
    rows, outcomes, open_ = [], {}, []
    for claim, treated, plain, measure, falls in claims:
        if treated not in found or plain not in found:
            open_.append(claim)
            continue
        verdict = judge(found[treated], found[plain], measure, falls)
        rows.append((claim, *verdict.cells, verdict.text))
        outcomes.setdefault(verdict.outcome, []).append(claim)
    columns = ("claim", "with", "without", "difference", heading)
    return {"table": _markdown(columns, rows) if rows else "", "outcomes": outcomes, "open": open_}


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim: the figures with and without, and their difference; the outcome; and the spread."""

    cells: tuple[str, str, str]
    outcome: str
    spread: float | None

    @property
    def text(self) -> str:
        return self.outcome if self.spread is None else f"{self.outcome} (± {self.spread:.4f})"


def judge(treated: Sequence[Row], plain: Sequence[Row], measure: str, falls: bool) -> Verdict:
    """Compares a difference with twice the larger spread over seeds, or for one seed, with the test set's noise."""
    with_, without = _mean(treated, measure), _mean(plain, measure)
    difference = with_ - without
    cells = (f"{with_:.4f}", f"{without:.4f}", f"{difference:+.4f}")
    holds = difference < 0 if falls else difference > 0
    if min(len(treated), len(plain)) > 1:
        spread = max(_spread(rows, measure) for rows in (treated, plain))
        # The spread of two seeds is a poor estimate.
        few = "two seeds only, " if min(len(treated), len(plain)) == 2 else ""
        if abs(difference) < 2 * spread:
            return Verdict(cells, f"{few}within the seeds' spread", spread)
        return Verdict(cells, f"{few}{'holds' if holds else 'does not hold'}", spread)
    noise = _noise(treated[0], plain[0], measure)
    if noise is not None and abs(difference) < 2 * noise:
        return Verdict(cells, "one seed, within the test set's noise", noise)
    return Verdict(cells, f"one seed, in the {'claimed' if holds else 'other'} direction", noise)


def _noise(treated: Row, plain: Row, measure: str) -> float | None:
    """The standard error of the difference of two accuracies, from the numbers of test images; None if unknown."""
    if "top1" not in measure or not treated.get("test_images"):
        return None
    shares = [(float(row[measure]), int(row["test_images"])) for row in (treated, plain)]
    return math.sqrt(sum(share * (1 - share) / images for share, images in shares))


# The same claims, tested on digits.
TESTED: tuple[Claim, ...] = (
    ("ML raises the entropy of the weights", "xnor+ml", "xnor", "weight_entropy", False),
    ("ML raises accuracy", "xnor+ml", "xnor", "test_top1", False),
    ("BMA raises the entropy of the activations", "xnor+bma", "xnor", "activation_entropy", False),
    ("BMA lowers the quantization error (the paper's levels)", "xnor+bma", "xnor", "quantization_error", True),
    ("BMA raises accuracy", "xnor+bma", "xnor", "test_top1", False),
    ("ML and BMA together raise accuracy", "xnor+ml+bma", "xnor", "test_top1", False),
    ("Bi-Real's gradients raise accuracy over BNN's", "bireal", "bnn", "test_top1", False),
    ("a trainable β raises accuracy", "bnnplus_r1", "bnnplus_r1, β = 5 fixed", "test_top1", False),
    (
        "without L2 the optimal code marks more weights (paper: 51 % and 37 %)",
        "siman",
        "siman with L2",
        "optimal_proportion",
        False,
    ),
    ("without L2 SiMaN is more accurate", "siman", "siman with L2", "test_top1", False),
)


def _tested_claims(rows: Sequence[Row]) -> dict[str, object]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["setting"], []).append(row)
    wanted = dict.fromkeys(setting for _, treated, plain, _, _ in TESTED for setting in (treated, plain))
    return {
        **_judged(TESTED, found, "verdict"),
        "seeds": sorted({row["seed"] for row in rows}),
        "missing": [setting for setting in wanted if setting not in found],
    }


def _curves(name: str, title: str, found: ByMethod | ByModel) -> str:
    """A picture of the validation accuracy and training loss of the first run of each method or network."""
    # Binary methods first, so that they have the same colours as in the other pictures.
    ordered = sorted(found.items(), key=lambda item: not item[1][0]["weight_entropy"])
    histories = {label: _history(_folder(rows[0]) / "history.csv") for label, rows in ordered}
    seeds = ", ".join(dict.fromkeys(rows[0]["seed"] for rows in found.values()))
    caption = f"{title}: validation accuracy (5,000 images) and training loss, seed {seeds}."
    return _picture(f"{name}-curves", figures.training_curves(histories, caption))


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
            run = f"Seed {found[method][0]['seed']}, {epochs} epochs on CIFAR-10."
            for name, drawn in over_epochs(recorded[method], method).items():
                picture = replace(drawn, caption=f"{drawn.caption} {run}")
                pictures.append(_picture(f"resnet20-{epochs}-{name}", picture))
    return pictures


def _files(rows: Sequence[Row]) -> str:
    columns = (
        *("network", "method", "data", "epochs", "seed", "sha256", ".tflite (bytes)", ".keras (bytes)"),
        *("test, Keras (%)", "test, .tflite (%)", "kernel bits equal"),
    )
    return _markdown(columns, map(_file, rows))


def _file(row: Row) -> tuple[str, ...]:
    return (
        *(row[key] for key in ("network", "method", "dataset", "epochs", "seed")),
        f"`{row['tflite_sha256'][:12]}`",
        f"{int(row['tflite_bytes']):,}",
        f"{int(row['keras_bytes']):,}",
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
