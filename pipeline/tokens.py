"""Bearer tokens: reads them, and checks that they are valid in an HTTP header."""

import os
import re
from pathlib import Path

from data.errors import ConfigError


def check_token(text: str, source: str) -> str:
    """Checks that a token is valid in an HTTP header. An HTTP library would print an invalid one in its error.

    Raises:
        ConfigError: The token is invalid; the error names its source and never the token.
    """
    if not re.fullmatch(r"[!-~]+", text):
        raise ConfigError(f"{source}: contains no token; allowed: one line of visible ASCII characters without blanks")
    return text


def read_token(file: Path) -> str:
    """Reads the token in a file."""
    try:
        return check_token(file.read_text(encoding="ascii", errors="replace").strip(), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: the token cannot be read: {error.strerror}") from None


def token_in_variable(variable: str, source: str) -> str:
    """Reads the token in an environment variable, which errors call `source`."""
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(f"{source}: this environment variable is not set, or empty")
    return check_token(token, source)
