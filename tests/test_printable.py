"""Untrusted text in terminals and spreadsheets."""

import pytest

from kbnn import tables
from kbnn.printable import cell, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\nb\rc", r"a\nb\rc"),
        ("safe\u202etxt.exe", r"safe\u202etxt.exe"),
        ("\u2028", r"\u2028"),
        ("\x9b31m", r"\x9b31m"),
        ("bad\udcffname", r"bad\udcffname"),
        ("dögs 犬 |", "dögs 犬 |"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str):
    assert printable(text) == shown


def test_line_feeds_stay_in_text_of_several_lines():
    assert printable("a\nb\x1b", lines=True) == "a\nb\\x1b"


def test_long_text_is_cut():
    assert printable("abcdef", longest=4) == "abc…"


def test_a_cell_of_a_table_stays_in_its_row():
    rendered = tables.render(("name",), [("one\ntwo\x1b[31m",)])
    assert r"one\ntwo\x1b[31m" in rendered


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd|' /C calc'!A0", "@SUM(A1)", "\uff1d1+1", "\uff20SUM(A1)"])
def test_formulas_are_text_in_a_spreadsheet(text: str):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["resnet20", "-0.5", "+1e-3", 3, -1.5, None])
def test_numbers_and_names_are_unchanged(value: object):
    assert cell(value) == value
