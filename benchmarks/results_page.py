"""Writes `docs/results.md` and its picture from `results/`, so that no figure on that page is typed by hand.

python benchmarks/results_page.py
"""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import levers
import record

from kbnn import files
from kbnn.analysis import figures
from kbnn.reproduction.ours import EPOCHS, LARGER, METHODS, RATES
from kbnn.training import Recipe

DOCS = record.ROOT / "docs"
Row = Mapping[str, str]
ByMethod = Mapping[str, Sequence[Row]]
# A claim about two rows of a table: its text, the row with the technique, the row without, the measure, and whether the
# measure should fall.
Claim = tuple[str, str, str, str, bool]

CLAIMS: tuple[Claim, ...] = (
    ("ML raises the entropy of the weights", "xnor+ml", "xnor", "weight_entropy", False),
    ("ML raises accuracy", "xnor+ml", "xnor", "top1", False),
    ("BMA raises the entropy of the activations", "xnor+bma", "xnor", "activation_entropy", False),
    (
        "BMA lowers the quantization error, at its learned thresholds, with least-squares levels",
        "xnor+bma",
        "xnor",
        "error",
        True,
    ),
    (
        "BMA lowers the quantization error, at the median, with the paper's levels",
        "xnor+bma",
        "xnor",
        "paper_error",
        True,
    ),
    ("BMA raises accuracy", "xnor+bma", "xnor", "top1", False),
    ("ML and BMA together raise accuracy", "xnor+ml+bma", "xnor", "top1", False),
    ("Bi-Real's gradients raise accuracy over BNN's", "bireal", "bnn", "top1", False),
    ("a trainable β raises accuracy (BNN+)", "bnnplus_r1", "bnnplus_r1, β = 5 fixed", "top1", False),
    (
        "without L2 the optimal code marks more weights (SiMaN: 51 % and 37 %)",
        "siman",
        "siman with L2",
        "optimal_proportion",
        False,
    ),
    ("without L2 SiMaN is more accurate", "siman", "siman with L2", "top1", False),
)
# The columns of the error with the paper's levels. Rows without them are older than the comparison by least-squares
# levels: their errors mix the two definitions and are not used.
_PAPER_ERROR = ("paper_error_sign", "paper_error_median")
UNTESTED = "not tested"


@dataclass(frozen=True)
class Aim:
    """The accuracy that a network should reach, in percent, and what it is compared with."""

    network: str
    method: str
    top1: float
    compared: str


AIMS = (
    Aim("resnet20", "bnn", 86.0, "published 1-bit ResNet-20: IR-Net 86.5, SiMaN 87.4, AdaBin 88.1, after 400 epochs"),
    Aim("compact32", "bnn", 87.0, "ResNet-8 in int8, MLPerf Tiny's first task: 85 are asked for"),
    Aim("compact64", "bnn", 91.0, "MLPerf Tiny's second task: 91 are asked for"),
    Aim("resnet20", "float+relu", 91.5, "published real-valued ResNet-20: 91.25"),
)


def main() -> None:
    # The first rows were recorded before these columns existed.
    trained = [{"learning_rate": "", "form": "", **row} for row in record.read("trained")]
    compared = _compared(trained)
    template = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701, it makes Markdown
    page = template.from_string(Path(__file__).with_name("results.md.j2").read_text()).render(
        epochs=EPOCHS,
        own=_own_recipes(record.RESULTS / "histories", trained),
        as_c=_as_c(record.read("forms"), record.read("micro")),
        rates=_rates(record.read("rates")),
        comparison=_comparison(compared),
        conversion=f"{max(100 * abs(float(row['keras_top1']) - float(row['tflite_top1'])) for row in trained):.2f}",
        claims=_claims(record.read("claims"), trained),
        aims=_aims(trained),
        papers=_paper_tables(record.read("paper_tables")),
        others=_others(trained),
        levers=_levers(record.read("levers")),
        precision=_precision(record.read("precision")),
        remaining=_remaining(trained),
    )
    files.write(DOCS / "results.md", page.rstrip() + "\n")


def _compared(trained: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of the comparison by method, in the order of its table, with ascending seeds.

    A method without a run in the network form of its paper has its run of the earlier comparison, which used one form
    and one rate for all.
    """
    rows = [row for row in trained if _is_compared(row)]
    found = {}
    for method in METHODS:
        every = [row for row in rows if row["method"] == method]
        own = [row for row in every if _is_in_own_form(row)]
        if every:
            found[method] = sorted(own or every, key=lambda row: int(row["seed"]))
    return found


def _is_compared(row: Row) -> bool:
    return row["network"] == "resnet20" and int(row["epochs"]) == EPOCHS and not _is_own(row)


def _is_in_own_form(row: Row) -> bool:
    return _is_compared(row) and bool(row["learning_rate"])


def _is_in_common_form(row: Row) -> bool:
    return _is_compared(row) and not row["learning_rate"]


def _is_own(row: Row) -> bool:
    return row["trained_by"].startswith("kbnn train best-")


def _comparison(found: ByMethod) -> dict[str, object]:
    rows = [_compared_line(method, runs) for method, runs in found.items()]
    columns = (
        *("method", "network form", "rate", "validation (%)", "test, Keras (%)", "test, .tflite (%)"),
        *(".tflite (kB)", "commit"),
    )
    best = max(
        (runs for runs in found.values() if runs[0]["weight_entropy"]), key=lambda runs: _mean(runs, "tflite_top1")
    )
    history = _history(_folder(best[0]) / "history.csv")[-1]
    return {
        "table": _markdown(columns, rows),
        "curves": _curves(found),
        "former": [method for method, runs in found.items() if not runs[0]["learning_rate"]],
        "best": best[0]["method"],
        "best_training": f"{100 * history['accuracy']:.1f}",
        "best_validation": f"{100 * _mean(best, 'validation_top1'):.1f}",
    }


def _compared_line(method: str, rows: Sequence[Row]) -> tuple[str, ...]:
    first = rows[0]
    return (
        method,
        first["form"] or "default",
        f"{float(first['learning_rate'] or RATES[0]):g}",
        *(f"{100 * _mean(rows, key):.2f}" for key in ("validation_top1", "keras_top1", "tflite_top1")),
        f"{int(first['tflite_bytes']) / 1000:.1f}",
        " ".join(dict.fromkeys(row["trained_at"] for row in rows)),
    )


def _rates(rows: Sequence[Row]) -> dict[str, object]:
    """The validation accuracy of each method at each learning rate; empty if no method has been tried at all rates."""
    tried: dict[str, dict[float, float]] = {}
    for row in rows:
        tried.setdefault(row["method"], {})[float(row["learning_rate"])] = 100 * float(row["validation_top1"])
    complete = {method: tried[method] for method in METHODS if set(tried.get(method, {})) == set(RATES)}
    if not complete:
        return {}
    best = {method: max(found, key=found.__getitem__) for method, found in complete.items()}
    lines = [
        (method, *(f"**{found[rate]:.1f}**" if rate == best[method] else f"{found[rate]:.1f}" for rate in RATES))
        for method, found in complete.items()
    ]
    return {
        "table": _markdown(("method", *(f"{rate:g}" for rate in RATES)), lines),
        "epochs": rows[0]["epochs"],
        "methods": len(complete),
        "lowest_is_best": [method for method, rate in best.items() if rate == RATES[0]],
        "missing": [method for method in METHODS if method not in complete],
    }


def _own_recipes(histories: Path, trained: Sequence[Row]) -> list[dict[str, str]]:
    """The progress of the runs of our own recipes, finished or not, with the test accuracy of the finished ones."""
    found = []
    for folder in sorted(histories.glob("best-*")):
        recipe = Recipe.read(folder / "config.toml")
        epochs = _history(folder / "history.csv")
        rows = [row for row in trained if _is_own(row) and _folder(row) == folder]
        found.append(
            {
                "recipe": recipe.name,
                "seed": str(recipe.seed),
                "done": str(len(epochs)),
                "epochs": str(recipe.epochs),
                "validation": f"{statistics.mean(100 * row['val_accuracy'] for row in epochs[-3:]):.1f}",
                "training": f"{100 * epochs[-1]['accuracy']:.1f}",
                "test": f"{100 * float(rows[-1]['tflite_top1']):.2f}" if rows else "",
                "kilobytes": f"{int(rows[-1]['tflite_bytes']) / 1000:.1f}" if rows else "",
            }
        )
    return found


def _as_c(forms: Sequence[Row], costs: Sequence[Row]) -> dict[str, str]:
    """The trained ResNet-20 as C code in int8 throughout, and ResNet-8 in int8 with the same kernels."""
    (*_, accuracy) = (row for row in forms if (row["network"], row["form"]) == ("resnet20", "binary, int8"))
    newest = {(row["network"], row["weights"], row["core"]): row for row in costs}
    found = {"top1": f"{100 * float(accuracy['top1']):.2f}", "epochs": accuracy["epochs"]}
    for network, weights in (("resnet20", "trained"), ("resnet8-int8", "random")):
        rows = {core: newest[network, weights, core] for core in ("cortex-m4", "cortex-m3", "rv32imac")}
        name = network.removesuffix("-int8")
        found |= {f"{name}_{core}": f"{int(row['instructions']) / 1e6:.1f}" for core, row in rows.items()}
        for memory in ("flash", "ram"):
            found[f"{name}_{memory}"] = f"{int(rows['cortex-m4'][f'{memory}_bytes']) / 1000:.1f}"
    return {key.replace("-", "_"): value for key, value in found.items()}


def _aims(trained: Sequence[Row]) -> str:
    """How far the networks are from what they should reach, and what the gain per doubling of the epochs promises."""
    columns = ("network", "aim (%)", "reached (%)", "epochs", "missing", "per doubling", "epochs to the aim")
    lines, compared = [], []
    for aim in AIMS:
        runs = [row for row in trained if (row["network"], row["method"]) == (aim.network, aim.method)]
        best = _best_by_epochs([row for row in runs if aim.method == "float+relu" or _is_own(row)])
        label = f"`{aim.network}`" if aim.method == "bnn" else f"`{aim.network}`, {aim.method}"
        compared.append(f"- {label}: {aim.compared}.")
        if not best:
            lines.append((label, f"{aim.top1:g}", "not trained", "", "", "", ""))
            continue
        epochs, reached = max(best.items(), key=lambda item: item[1])
        missing = max(0.0, aim.top1 - reached)
        gain = _gain_per_doubling(best)
        cells = (label, f"{aim.top1:g}", f"{reached:.2f}", str(epochs), f"{missing:.1f}")
        if gain is None or gain <= 0:
            lines.append((*cells, "unknown: one run" if gain is None else f"{gain:+.1f}", ""))
        else:
            lines.append((*cells, f"{gain:+.1f}", f"{epochs * 2 ** (missing / gain):.0f}"))
    return "\n".join([_markdown(columns, lines), "", "The aims compare with:", "", *compared])


def _best_by_epochs(rows: Sequence[Row]) -> dict[int, float]:
    """The best test accuracy of a .tflite file, in percent, for each number of epochs."""
    best: dict[int, float] = {}
    for row in rows:
        epochs = int(row["epochs"])
        best[epochs] = max(best.get(epochs, 0.0), 100 * float(row["tflite_top1"]))
    return best


def _gain_per_doubling(best: Mapping[int, float]) -> float | None:
    """The points gained per doubling of the epochs, between the shortest and the longest run; None for one run."""
    if len(best) < 2:
        return None
    short, long = min(best), max(best)
    return (best[long] - best[short]) / math.log2(long / short)


def _paper_tables(rows: Sequence[Row]) -> str:
    """Rows of the papers' tables by their own recipes at fewer epochs; empty if there are none."""
    columns = {
        "table": "table",
        "row": "row",
        "epochs": "epochs",
        "seeds": "seeds",
        "test_top1": "test (%)",
        "test_top5": "top-5 (%)",
        "mean": "mean (%)",
        "deviation": "± over seeds",
        "paper": "paper (%)",
        "planned": "its epochs",
    }
    # The first rows were recorded without top-5 accuracy.
    return (
        _markdown(tuple(columns.values()), ([row.get(name) or "" for name in columns] for row in rows)) if rows else ""
    )


def _levers(rows: Sequence[Row]) -> dict[str, str]:
    """What was tried with the best recipe, from the largest gain to the largest loss; empty if nothing was tried."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        run = (row["epochs"], row["seed"])
        found.setdefault(run, {})[row["lever"]] = 100 * float(row["validation_top1"])
    gains: dict[str, list[float]] = {}
    for tried in found.values():
        for lever in tried if levers.NONE in tried else ():
            gains.setdefault(lever, []).append(tried[lever] - tried[levers.NONE])
    means = {lever: statistics.mean(found) for lever, found in gains.items() if lever != levers.NONE}
    if not means:
        return {}
    lines = [
        (lever, f"{means[lever]:+.1f}", str(len(gains[lever])))
        for lever in sorted(means, key=lambda name: -means[name])
    ]
    return {
        "table": _markdown(("change", "points", "seeds"), lines),
        "epochs": rows[0]["epochs"],
        "recipe": levers.RECIPE,
    }


def _others(trained: Sequence[Row]) -> str:
    """All runs that were trained for longer than the comparison, and the larger networks."""
    rows = [row for row in trained if row["dataset"] == "cifar10" and (row["network"] != "resnet20" or _is_longer(row))]
    columns = (
        *("network", "method", "epochs", "seed", "validation (%)", "test, Keras (%)", "test, .tflite (%)"),
        *(".tflite (kB)", "command", "commit"),
    )
    lines = [
        (
            *(row[key] for key in ("network", "method", "epochs", "seed")),
            *(f"{100 * float(row[key]):.2f}" for key in ("validation_top1", "keras_top1", "tflite_top1")),
            f"{int(row['tflite_bytes']) / 1000:.1f}",
            f"`{row['trained_by']}`",
            row["trained_at"],
        )
        for row in rows
    ]
    return _markdown(columns, lines)


def _is_longer(row: Row) -> bool:
    return int(row["epochs"]) > EPOCHS or _is_own(row)


def _remaining(trained: Sequence[Row]) -> dict[str, Sequence[str]]:
    """The planned trainings that are missing: methods of the comparison, and larger networks."""
    compared = _compared(trained)
    return {
        "methods": [
            method for method in METHODS if not compared.get(method) or not compared[method][0]["learning_rate"]
        ],
        "larger": [name for name in _larger_names() if not any(_name(row) == name for row in trained)],
    }


def _larger_names() -> list[str]:
    return [f"{model}-{method}" for model, method in LARGER]


def _name(row: Row) -> str:
    return f"{row['network']}-{row['method']}"


def _precision(rows: Sequence[Row]) -> dict[str, object]:
    """Compares bfloat16 with float32 over the seeds that were trained in both, if there are at least two of them."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        if len([other for other in rows if other["seed"] == row["seed"]]) == 2:
            found.setdefault(row["policy"], []).append(row)
    if not found or min(map(len, found.values())) < 2:
        return {}
    verdict = judge(found["mixed_bfloat16"], found["float32"], "test_top1_in_float32", False)
    return {
        "means": {policy: f"{100 * _mean(runs, 'test_top1_in_float32'):.2f}" for policy, runs in found.items()},
        "seeds": len(found["float32"]),
        "difference": f"{100 * float(verdict.cells[2]):+.2f}",
        "within": "within" in verdict.outcome,
        **{key: rows[0][key] for key in ("method", "epochs", "command")},
    }


def _claims(digits: Sequence[Row], trained: Sequence[Row]) -> dict[str, object]:
    """Each claim with its verdicts on digits, by several seeds, and on CIFAR-10, by one.

    On CIFAR-10 both sides of a claim come from the comparison, or if one is missing there, from the earlier one.
    """
    latest = {(row["setting"], row["seed"]): _measured(row, row["setting"], "test_top1") for row in digits}
    small: dict[str, list[Row]] = {}
    for (setting, _), row in latest.items():
        small.setdefault(setting, []).append(row)
    now, before = (
        {row["method"]: [_measured(row, row["method"], "keras_top1")] for row in trained if kind(row)}
        for kind in (_is_in_own_form, _is_in_common_form)
    )
    lines = []
    for claim in CLAIMS:
        recent = _verdict(claim, now)
        lines.append((claim[0], _verdict(claim, small), _verdict(claim, before) if recent == UNTESTED else recent))
    missing = {name for claim in CLAIMS for name in claim[1:3] if _verdict(claim, small) == UNTESTED}
    return {
        "table": _markdown(("claim", "digits", "CIFAR-10"), lines),
        "seeds": sorted({seed for _, seed in latest}),
        "missing": [setting for setting in small if setting in missing],
        "optimal_code": [
            {
                "share": f"{100 * float(row['optimal_proportion']):.0f}",
                "run": ", ".join(filter(None, (f"{row['epochs']} epochs", row["form"]))),
            }
            for row in trained
            if (row["network"], row["method"]) == ("resnet20", "siman") and int(row["epochs"]) >= EPOCHS
        ],
    }


def _measured(row: Row, method: str, accuracy: str) -> Row:
    """A row with the names of `CLAIMS`; the errors are left out where they have the former definition."""
    measures = {**row, "top1": row[accuracy]}
    if row.get(_PAPER_ERROR[0]):
        measures |= {"error": row["quantization_error"], "paper_error": row[_PAPER_ERROR["bma" in method]]}
    return measures


def _verdict(claim: Claim, found: ByMethod) -> str:
    _, treated, plain, measure, falls = claim
    if any(not row.get(measure) for name in (treated, plain) for row in found.get(name, [{}])):
        return UNTESTED
    verdict = judge(found[treated], found[plain], measure, falls)
    return f"{verdict.text}: {verdict.cells[0]} with, {verdict.cells[1]} without"


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


def _curves(found: ByMethod) -> str:
    """A picture of the validation accuracy and training loss of the first run of each method."""
    # Binary methods first, so that they have the same colours in every edition of the picture.
    ordered = sorted(found.items(), key=lambda item: not item[1][0]["weight_entropy"])
    histories = {label: _history(_folder(rows[0]) / "history.csv") for label, rows in ordered}
    caption = f"ResNet-20, {EPOCHS} epochs: validation accuracy (5,000 images) and training loss, seed 0."
    picture = figures.training_curves(histories, caption)
    files.write(DOCS / "pictures" / f"resnet20-{EPOCHS}-curves.png", picture.png)
    return f"![{caption}](pictures/resnet20-{EPOCHS}-curves.png)\n\n{caption}"


def _history(path: Path) -> list[dict[str, float]]:
    """The epochs of a run, each without the figures that its stage does not have."""
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _folder(row: Row) -> Path:
    prefix = f"best-{row['network']}" if _is_own(row) else f"{row['network']}-{row['method']}"
    name = f"{prefix}-{row['dataset']}-{row['epochs']}-seed{row['seed']}"
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
