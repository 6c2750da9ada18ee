"""Class names."""

import pytest

from kbnn import labels
from kbnn.errors import UsageError


def test_ordinary_names_pass():
    labels.check(["cat", "großer Hund", "dog #2", "鳥"], outputs=4)


@pytest.mark.parametrize("name", ["a\nb", "a\r", "\x0bb", "a\x85b", "a\u2029b", "", "  ", "\udce9", "a\x00b"])
def test_names_that_would_shift_or_damage_a_label_file(name: str):
    with pytest.raises(UsageError, match="rename the class"):
        labels.check(["cat", name])


def test_a_label_for_each_output():
    with pytest.raises(UsageError, match=r"received 2 labels \(cat, dog\) for 3 outputs"):
        labels.check(["cat", "dog"], 3)


def test_one_output_has_two_labels():
    labels.check(["cat", "dog"], 1)
    for names in (["cat"], ["cat", "dog", "owl"]):
        with pytest.raises(UsageError, match=r"for 1 output, give two labels for its two classes"):
            labels.check(names, 1)
