"""The page of results matches its rows."""

from pathlib import Path

import pytest
import record
import results_page


def rows(method: str, *accuracies: float, measure: str = "keras_top1") -> list[dict[str, str]]:
    return [{"method": method, "seed": str(seed), measure: str(value)} for seed, value in enumerate(accuracies)]


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


def test_claims_are_sorted_by_outcome_and_those_without_runs_are_named():
    claims = [("A raises it", "a", "b", "keras_top1", False), ("C raises it", "c", "b", "keras_top1", False)]
    judged = results_page._judged(claims, {"a": rows("a", 0.6), "b": rows("b", 0.5)}, "verdict")
    assert judged["outcomes"] == {"one seed, in the claimed direction": ["A raises it"]}
    assert judged["open"] == ["C raises it"]


def test_methods_keep_the_order_of_the_table_with_ascending_seeds():
    found = results_page._by_method([*rows("bireal", 0.5), *rows("float", 0.7), *reversed(rows("bnn", 0.4, 0.41))])
    assert list(found) == ["float", "bnn", "bireal"]
    assert [row["seed"] for row in found["bnn"]] == ["0", "1"]


def trained(network: str, method: str, epochs: int, validation: float = 0.5) -> dict[str, str]:
    accuracies = dict.fromkeys(("keras_top1", "tflite_top1"), "0.5")
    return {
        "network": network,
        "method": method,
        "epochs": str(epochs),
        "seed": "0",
        "trained_at": "abc",
        "tflite_bytes": "1000",
        "validation_top1": str(validation),
        "weight_entropy": "" if method == "float" else "5.4",
        **accuracies,
    }


def test_remaining_runs_are_those_without_a_row():
    common = [trained("resnet20", method, 20, 0.5 + 0.01 * k) for k, method in enumerate(results_page.METHODS)]
    rest = results_page._remaining([*common[1:], trained("resnet20", "xnor", 60), trained("bireal18", "bireal", 3)])
    assert rest == {
        "common": ["float"],
        "long": ["bnnplus_r2", "bnnplus_r1", "xnor+ml+bma"],
        "larger": ["presb10-presb"],
    }


def test_larger_networks_are_a_table_once_there_are_rows():
    assert results_page._larger([trained("resnet20", "xnor", 20)]) == {}
    table = results_page._larger_table({"bireal18": [trained("bireal18", "bireal", 3)]})
    assert "| bireal18 | bireal | 3 | 0 | 50.00 |" in table


def test_precisions_are_compared_once_both_were_trained():
    def runs(policy: str, *accuracies: float) -> list[dict[str, str]]:
        known = {"policy": policy, "method": "bireal", "epochs": "10", "command": "python benchmarks/precision.py"}
        return [{**row, **known, "test_top1": "0.6"} for row in rows("", *accuracies, measure="test_top1_in_float32")]

    half, single = runs("mixed_bfloat16", 0.60, 0.61, 0.62), runs("float32", 0.61, 0.62, 0.63)
    assert results_page._precision(half) == {}
    assert results_page._precision([*half, single[0]]) == {}
    found = results_page._precision([*half, *single])
    assert (found["difference"], found["within"]) == ("-1.00", True)
    assert "| float32 | 0 1 2 | 61.00 62.00 63.00 | 62.00 | 1.00 | 60.00 60.00 60.00 |" in found["table"]
