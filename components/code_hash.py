"""The hash of the code that a stage runs, for its cache key.

TFX hashes no code when a component is given by import path, so an edit would go unnoticed. This hash covers the
stage's module and every module of this project that it imports, directly or not; an edit elsewhere changes nothing.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "models", "components", "pipeline")


def module_file(module: str, root: Path = ROOT) -> Path | None:
    """The source of a module of this project; None for any other name."""
    if module.split(".", 1)[0] not in PACKAGES:
        return None
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imported_names(source: str) -> Iterator[str]:
    """Dotted names that a source imports; `from a import b` gives both `a` and `a.b`, because `b` may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> list[str]:
    """'a.b.c' -> ['a', 'a.b', 'a.b.c']: importing a module runs the packages above it."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


@cache
def source_files(module: str, root: Path = ROOT) -> frozenset[Path]:
    """The files of this project that importing a module runs."""
    found: dict[str, Path] = {}
    waiting = _with_parents(module)
    while waiting:
        name = waiting.pop()
        path = module_file(name, root)
        if path is None or name in found:
            continue
        found[name] = path
        for imported in imported_names(path.read_text(encoding="utf-8")):
            waiting += _with_parents(imported)
    return frozenset(found.values())


def code_hash(module: str, root: Path = ROOT, files: Path | None = None) -> str:
    """SHA-256 over names and contents of the files that a module runs, as 16 hexadecimal digits.

    Args:
        module: Dotted name.
        root: The project's folder.
        files: A folder whose files count, too.
    """
    digest = hashlib.sha256()
    for path in sorted([*source_files(module, root), *(files.iterdir() if files else ())]):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()[:16]
