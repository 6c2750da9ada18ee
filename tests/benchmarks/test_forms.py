"""The tables of docs/deployment.md that compare the forms of a network."""

import forms


def test_the_tables_are_those_of_the_results():
    text = forms.DOCS.read_text()
    assert forms.page(text) == text
    assert "| binary, int8 weights | `kbnn convert --weights int8` |" in text


def test_a_row_per_form():
    known = {
        "run": "mine",
        "network": "tiny",
        "method": "bnn",
        "dataset": "digits",
        "epochs": "2",
        "test_images": "1797",
    }
    keras = {"form": "Keras", "made_by": "", "top1": "0.5", "top1_low": "0.45", "top1_high": "0.55"}
    rows = [
        {**known, **keras, "run": "older", "agreement": "1.0000", "bytes": ""},
        {**known, **keras, "agreement": "1.0000", "bytes": ""},
        {**known, **keras, "form": "binary", "made_by": "kbnn convert", "agreement": "0.9871", "bytes": "12345"},
    ]
    found = forms.table(rows).splitlines()
    assert len(found) == 6
    assert found[0] == "`mine`: tiny with method bnn, 2 epochs, 1,797 test images of digits"
    assert found[-2:] == [
        "| Keras |  | 50.0 % (45.0 to 55.0) |  |  |",
        "| binary | `kbnn convert` | 50.0 % (45.0 to 55.0) | 98.7 % | 12,345 |",
    ]
