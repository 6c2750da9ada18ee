"""Errors say what failed, what was received, and what to do."""

import pytest

from kbnn.errors import KbnnError, UsageError, unknown


def test_unknown_suggests_similar_names():
    error = unknown("model", "resnet2", ["resnet20", "tiny", "vgg_small"])
    assert str(error) == "unknown model: received 'resnet2'; did you mean resnet20?"
    assert error.exit_status == 2


def test_unknown_lists_all_names_when_none_is_similar():
    assert str(unknown("method", "x", ["float", "bireal"])).endswith("choose one of bireal, float")


def test_unknown_cuts_a_long_list():
    message = str(unknown("recipe", "?", [f"name{k:02}" for k in range(60)]))
    assert message.endswith("choose one of the 60 names, such as name00, name01, name02")


@pytest.mark.parametrize("received", [None, 5, ("a", "b")])
def test_unknown_takes_values_that_are_no_text(received):
    assert f"received '{received}'; choose one of" in str(unknown("method", received, ["float", "bireal"]))


def test_usage_errors_are_value_errors():
    with pytest.raises(ValueError, match="no"):
        raise UsageError("no")
    assert not issubclass(KbnnError, ValueError)


def test_control_characters_in_messages_are_escaped():
    assert str(UsageError("no file '\x1b[2J\udcff'\nsecond line")) == "no file '\\x1b[2J\\udcff'\nsecond line"
