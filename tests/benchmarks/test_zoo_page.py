"""The page of networks matches its rows, and counting again gives the same numbers."""

import pytest
import zoo

from kbnn import models


def test_the_page_is_written_from_the_committed_rows():
    zoo.check()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "resnet20", "presb10"])
def test_counting_again_finds_what_the_rows_say(name: str):
    architecture = models.get(name)
    shape, classes = architecture.input_shape, architecture.classes
    (row,) = [
        row
        for row in zoo.record.read("zoo")
        if (row["network"], row["input"], int(row["classes"])) == (name, "x".join(map(str, shape)), classes)
    ]
    counted = zoo.counts(zoo.build(architecture, shape, classes))
    assert counted == {count: int(row[count]) for count in zoo.COUNTS}


def test_every_network_is_measured_at_every_size():
    measured = {(row["network"], row["input"]) for row in zoo.record.read("zoo")}
    expected = {
        (architecture.name, "x".join(map(str, shape)))
        for architecture in models.architectures()
        for shape, _ in zoo.sizes(architecture)
    }
    assert measured == expected
