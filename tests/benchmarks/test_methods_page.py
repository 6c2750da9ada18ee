"""The page of methods matches the registries."""

import methods_page


def test_the_page_is_written_from_the_registries():
    assert methods_page.PAGE.read_text() == methods_page.page()


def test_every_gradient_is_plotted():
    drawn = {path.stem for path in methods_page.PICTURES.glob("*.png")}
    assert drawn == {name for name, _ in methods_page.pictures()}
