"""The page of results matches its rows."""

from pathlib import Path

import levers
import pytest
import record
import results_page


def rows(method: str, *accuracies: float, measure: str = "keras_top1") -> list[dict[str, str]]:
    return [{"method": method, "seed": str(seed), measure: str(value)} for seed, value in enumerate(accuracies)]


@pytest.mark.slow
def test_the_committed_page_is_written_from_the_committed_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(results_page, "DOCS", tmp_path)
    results_page.main()
    assert (tmp_path / "results.md").read_text() == (record.ROOT / "docs" / "results.md").read_text()
    drawn = {path.name for path in (tmp_path / "pictures").glob("*.png")}
    assert drawn == {path.name for path in (record.ROOT / "docs" / "pictures").glob("*.png")}


@pytest.mark.parametrize(
    ("treated", "plain", "falls", "verdict"),
    [
        ((0.60,), (0.50,), False, "one seed, in the claimed direction"),
        ((0.50,), (0.60,), False, "one seed, in the other direction"),
        ((0.50,), (0.60,), True, "one seed, in the claimed direction"),
        ((0.60,), (0.50, 0.51, 0.52), False, "one seed, in the claimed direction"),
        ((0.60, 0.62, 0.64), (0.50, 0.51, 0.52), False, "holds (± 0.0200)"),
        ((0.50, 0.51, 0.52), (0.60, 0.62, 0.64), False, "does not hold (± 0.0200)"),
        ((0.60, 0.62, 0.64), (0.60, 0.61, 0.62), False, "within the seeds' spread (± 0.0200)"),
    ],
)
def test_a_claim_is_judged_against_the_spread_over_seeds(
    treated: tuple[float, ...], plain: tuple[float, ...], falls: bool, verdict: str
):
    judged = results_page.judge(rows("a", *treated), rows("b", *plain), "keras_top1", falls)
    assert judged.text == verdict


@pytest.mark.parametrize(
    ("images", "verdict"),
    [
        ("100", "one seed, within the test set's noise (± 0.0698)"),
        ("10000", "one seed, in the claimed direction (± 0.0070)"),
    ],
)
def test_one_seed_is_judged_against_the_size_of_the_test_set(images: str, verdict: str):
    treated, plain = ({**row, "test_images": images} for row in (*rows("a", 0.60), *rows("b", 0.55)))
    assert results_page.judge([treated], [plain], "keras_top1", False).text == verdict


def trained(method: str, rate: str, **changes: str) -> dict[str, str]:
    row = {
        "network": "resnet20",
        "method": method,
        "dataset": "cifar10",
        "epochs": "20",
        "seed": "0",
        "learning_rate": rate,
        "form": "",
        "trained_by": "kbnn reproduce cifar10-resnet20",
        "test_images": "10000",
        "keras_top1": "0.5",
        "weight_entropy": "5.4",
        "activation_entropy": "5.4",
        "quantization_error": "0.3",
        "optimal_proportion": "0.5",
    }
    return {**row, **changes}


def test_aims_extrapolate_the_gain_per_doubling_of_the_epochs():
    own = {"trained_by": "kbnn train best-resnet20-cifar10"}
    runs = [
        trained("bnn", "0.01", **own, epochs=epochs, tflite_top1=top1)
        for epochs, top1 in (("40", "0.80"), ("160", "0.84"))
    ]
    resnet20, compact32, *_ = results_page._aims(runs).splitlines()[2:]
    # 4 points in two doublings; 2 points are missing: another doubling of 160 epochs.
    assert "| 86 | 84.00 | 160 | 2.0 | +2.0 | 320 |" in resnet20
    assert "not trained" in compact32
    assert "| 80.00 | 40 | 6.0 | unknown: one run |" in results_page._aims(runs[:1])


def test_methods_keep_the_order_of_the_table_and_a_run_in_its_own_form_replaces_the_earlier_one():
    rows = [trained("bireal", ""), trained("bnn", "", seed="1"), trained("bnn", ""), trained("bireal", "0.01")]
    found = results_page._compared([*rows, trained("xnor", "0.01", epochs="60")])
    assert list(found) == ["bnn", "bireal"]
    assert [row["seed"] for row in found["bnn"]] == ["0", "1"]
    assert [row["learning_rate"] for row in found["bireal"]] == ["0.01"]


def test_remaining_runs_are_those_without_a_row_in_their_own_form():
    rows = [trained(method, "0.01") for method in results_page.METHODS if method not in ("float", "xnor")]
    rest = results_page._remaining([*rows, trained("xnor", ""), trained("bireal", "", network="bireal18")])
    assert rest == {"methods": ["float", "xnor"], "larger": ["presb10-presb"]}


def test_both_sides_of_a_claim_come_from_the_same_comparison():
    former = [trained("xnor", "", keras_top1="0.70"), trained("xnor+ml", "", keras_top1="0.60")]
    mixed = [*former, trained("xnor+ml", "0.01", keras_top1="0.80")]
    of_accuracy = next(claim for claim in results_page.CLAIMS if claim[0] == "ML raises accuracy")
    assert "in the other direction" in verdict(of_accuracy, mixed)
    assert "0.8000 with, 0.6500 without" in verdict(of_accuracy, [*mixed, trained("xnor", "0.01", keras_top1="0.65")])


def test_errors_by_the_former_definition_are_not_used():
    of_error = next(claim for claim in results_page.CLAIMS if claim[3] == "error")
    of_paper = next(claim for claim in results_page.CLAIMS if claim[3] == "paper_error")
    rows = [trained("xnor", ""), trained("xnor+bma", "", quantization_error="0.2")]
    assert verdict(of_error, rows) == results_page.UNTESTED
    new = {"paper_error_sign": "0.3", "paper_error_median": "0.5"}
    assert "0.2000 with, 0.3000 without" in verdict(of_error, [{**row, **new} for row in rows])
    assert "0.5000 with, 0.3000 without" in verdict(of_paper, [{**row, **new} for row in rows])


def verdict(claim: results_page.Claim, rows: list[dict[str, str]]) -> str:
    """The verdict of a claim on CIFAR-10."""
    table = str(results_page._claims([], rows)["table"])
    return next(line for line in table.splitlines() if claim[0] in line).split(" | ")[2].removesuffix(" |")


def test_the_best_rate_of_each_method_is_marked_once_all_were_tried():
    def tried(method: str, *accuracies: float) -> list[dict[str, str]]:
        return [
            {"method": method, "learning_rate": str(rate), "validation_top1": str(value), "epochs": "3"}
            for rate, value in zip(results_page.RATES, accuracies, strict=False)
        ]

    assert results_page._rates(tried("bnn", 0.5)) == {}
    rates = results_page._rates([*tried("bnn", 0.5, 0.6, 0.7), *tried("siman", 0.6, 0.5, 0.4), *tried("xnor", 0.1)])
    assert "| bnn | 50.0 | 60.0 | **70.0** |" in rates["table"]
    assert "| siman | **60.0** | 50.0 | 40.0 |" in rates["table"]
    assert (rates["methods"], rates["lowest_is_best"]) == (2, ["siman"])
    assert "xnor" in rates["missing"]


def test_precisions_are_compared_once_both_were_trained():
    def runs(policy: str, *accuracies: float) -> list[dict[str, str]]:
        known = {"policy": policy, "method": "bireal", "epochs": "10", "command": "python benchmarks/precision.py"}
        return [{**row, **known, "test_top1": "0.6"} for row in rows("", *accuracies, measure="test_top1_in_float32")]

    half, single = runs("mixed_bfloat16", 0.60, 0.61, 0.62), runs("float32", 0.61, 0.62, 0.63)
    assert results_page._precision(half) == {}
    assert results_page._precision([*half, single[0]]) == {}
    found = results_page._precision([*half, *single])
    assert (found["difference"], found["within"], found["seeds"]) == ("-1.00", True, 3)
    assert found["means"] == {"mixed_bfloat16": "61.00", "float32": "62.00"}


def test_levers_are_ordered_by_their_mean_gain_over_the_recipe_at_the_same_seed():
    def tried(lever: str, seed: int, accuracy: float) -> dict[str, str]:
        return {"lever": lever, "epochs": "5", "seed": str(seed), "validation_top1": str(accuracy)}

    rows = [tried(levers.NONE, 0, 0.7), tried("batch 64", 0, 0.68), tried("EDE gradient", 0, 0.71)]
    rows += [tried(levers.NONE, 1, 0.6), tried("EDE gradient", 1, 0.63)]
    # Without the recipe itself at the same seed, there is nothing to compare with.
    rows += [tried("batch 256", 2, 0.9)]
    table = results_page._levers(rows)["table"].splitlines()[2:]
    assert table == ["| EDE gradient | +2.0 | 2 |", "| batch 64 | -2.0 | 1 |"]
    assert results_page._levers(rows[:1]) == {}
