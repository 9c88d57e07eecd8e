"""accelserve's own source, where it is there: what its Dockerfiles need of it."""

from collections.abc import Iterator
from pathlib import Path

import accelserve

_PARTS = ("pyproject.toml", "README.md", "LICENSE", ".dockerignore", "server", "deploy/locks", "deploy/fpga")


def source_tree() -> Path | None:
    """The checkout that this package is run from; None where it is installed from a wheel."""
    top = Path(accelserve.__file__).parents[2]
    return top if (top / "Dockerfile.gpu").is_file() and (top / "deploy" / "locks").is_dir() else None


def build_files(top: Path, dockerfile: str) -> Iterator[Path]:
    """The Dockerfile and all that it copies, in order of name: what `.dockerignore` lets through."""
    found = {top / dockerfile}
    for part in _PARTS:
        place = top / part
        found |= {place} if place.is_file() else set(_of_folder(place, top))
    yield from sorted(found)


def _of_folder(folder: Path, top: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        parts = path.relative_to(top).parts
        left_out = any(part.startswith(".") or part == "__pycache__" or part.endswith(".egg-info") for part in parts)
        if path.is_file() and not left_out and path.suffix not in (".pyc", ".pyo"):
            yield path
