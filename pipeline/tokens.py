"""Bearer tokens: what may stand in an HTTP header, and where a token is read from."""

import os
import re
from pathlib import Path

from data.errors import ConfigError


def check_token(text: str, source: str) -> str:
    """A token that can stand in a header. An HTTP library would print any other one in its error.

    Raises:
        ConfigError: It cannot; the error names the source and never the token.
    """
    if not re.fullmatch(r"[!-~]+", text):
        raise ConfigError(f"{source}: holds no token; allowed: one line of visible ASCII characters without blanks")
    return text


def read_token(file: Path) -> str:
    """The token in a file."""
    try:
        return check_token(file.read_text(encoding="ascii", errors="replace").strip(), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: the token cannot be read: {error.strerror}") from None


def token_in_variable(variable: str, source: str) -> str:
    """The token in an environment variable, which `source` names in errors."""
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(f"{source}: this environment variable is not set, or empty")
    return check_token(token, source)
