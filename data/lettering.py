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


def drawable(text: str, letters: Font) -> str:
    """The text, in place of what a font lacks the nearest that it has: "Grosse" for "Größe", or "?"."""
    missing = bytes(letters.getmask(_NO_LETTER))

    def has(spelling: str) -> bool:
        return bool(spelling) and all(sign == " " or bytes(letters.getmask(sign)) != missing for sign in spelling)

    return "".join(next(filter(has, _spellings(sign)), "?") for sign in text)


def _spellings(letter: str) -> tuple[str, str, str]:
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return letter, plain, letter.casefold()
