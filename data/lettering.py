"""Draws text onto images, with a font of the system."""

import unicodedata
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: A font with the letters of Europe's languages. Pillow's own font, which is always available, has those of ASCII.
FONT = "DejaVuSans.ttf"

#: A character that no font has: it is drawn as every missing character is.
_NO_LETTER = "\U0010ffff"


@cache
def font(size: int) -> Font:
    """The font above at a size in pixels, or Pillow's own where the system does not have it."""
    try:
        return ImageFont.truetype(FONT, size)
    except OSError:
        return ImageFont.load_default(size)


def drawable(text: str, letters: Font) -> str:
    """The text, with the nearest that the font has for each letter that it lacks: "Grosse" for "Größe", or "?"."""
    missing = bytes(letters.getmask(_NO_LETTER))

    def has(spelling: str) -> bool:
        return bool(spelling) and all(sign == " " or bytes(letters.getmask(sign)) != missing for sign in spelling)

    spelled = []
    for letter in text:
        plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
        spelled.append(next(filter(has, (letter, plain, letter.casefold())), "?"))
    return "".join(spelled)
