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


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_label_for_each_output(outputs: int):
    with pytest.raises(UsageError, match=rf"received 2 labels \(cat, dog\) for {outputs} outputs"):
        labels.check(["cat", "dog"], outputs)
