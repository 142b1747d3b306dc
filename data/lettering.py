"""Words in pictures."""

import unicodedata
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Has the letters of Europe's languages; Pillow's own has those of ASCII, and is always there.
FONT = "DejaVuSans.ttf"

#: No font has a letter for it: what is drawn instead is what is drawn for any that is missing.
_NO_LETTER = "\U0010ffff"


@cache
def font(size: int) -> Font:
    """A font of the system, else Pillow's own; `size` in pixels."""
    try:
        return ImageFont.truetype(FONT, size)
    except OSError:
        return ImageFont.load_default(size)


def drawable(text: str, font: Font) -> str:
    """The text, in place of letters that a font lacks the nearest that it has: "Grosse" for "Größe", or "?"."""
    return "".join(next((spelling for spelling in _spellings(letter) if _has(font, spelling)), "?") for letter in text)


def _spellings(letter: str) -> tuple[str, str, str]:
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return letter, plain, letter.casefold()


def _has(font: Font, text: str) -> bool:
    missing = bytes(font.getmask(_NO_LETTER))
    return bool(text) and all(letter == " " or bytes(font.getmask(letter)) != missing for letter in text)
