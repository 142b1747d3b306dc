"""Names are drawn in letters that a font has."""

import pytest
from PIL import ImageFont

from data import lettering
from data.lettering import drawable, font

OWN = ImageFont.load_default(13)  # ASCII alone.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("road 2", "road 2"),
        ("Größe", "Grosse"),
        ("naïve café", "naive cafe"),
        ("道路 a", "?? a"),
        ("", ""),
    ],
)
def test_letters_that_a_font_lacks_are_replaced_by_the_nearest(text: str, expected: str):
    assert drawable(text, OWN) == expected


def test_without_the_font_of_the_system_that_of_the_library_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lettering, "FONT", "no such font.ttf")
    font.cache_clear()
    assert font(13).getname() == OWN.getname()
    font.cache_clear()
