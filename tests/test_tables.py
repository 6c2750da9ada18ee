"""Results as text and, in notebooks, as HTML."""

from kbnn import tables
from kbnn.analysis.pictures import picture


class Result(tables.Shown):
    def __str__(self) -> str:
        return "before <b>\n" + tables.render(("name", ">count"), [("<x>", 1), (None, 22)], "title") + "\n\nafter"


def test_a_table_is_aligned_text():
    lines = [line.split() for line in str(Result()).splitlines() if line.strip()]
    assert lines == [["before", "<b>"], ["title"], ["name", "count"], ["─" * 14], ["<x>", "1"], ["22"], ["after"]]


def test_notebooks_show_the_same_words_and_a_table():
    shown = Result()._repr_html_()
    assert shown.count("<table>") == shown.count("</table>") == 1
    assert '<td style="text-align: left">&lt;x&gt;</td><td style="text-align: right">1</td>' in shown
    assert shown.index("before &lt;b&gt;") < shown.index("<table>") < shown.index("after")
    assert "<table>" not in str(Result()), "text stays text afterwards"


def test_notebooks_show_a_picture_with_its_caption():
    shown = picture(lambda figure: figure.subplots().plot([0, 1]), "a < b")._repr_html_()
    assert shown.startswith('<img alt="" style="max-width: 100%" src="data:image/png;base64,iVBOR')
    assert "a &lt; b" in shown


def test_counts_have_three_digits_and_a_unit():
    counts = {0: "0", 999.4: "999", 999.6: "1 k", 1234: "1.23 k", 999_499: "999 k", 999_999: "1 M", 2.5e9: "2.5 G"}
    assert {number: tables.count(number) for number in counts} == counts
    assert (tables.count(139_560_000, 4), tables.count(5e14)) == ("139.6 M", "500,000 G")


def test_text_cannot_stand_for_a_table():
    class Named(tables.Shown):
        def __str__(self) -> str:
            return "\x1e0\x1e " + tables.render(("a",), [("b",)])

    assert Named()._repr_html_().count("<table>") == 1
