"""The model that comes with the package, handwritten digits, and ten pictures to ask it about (examples/digits)."""

from pathlib import Path

_HERE = Path(__file__).parent


def digits_path() -> Path:
    """The model's base path: a folder with `accelserve.toml`, `labels.txt` and the version folder `1`."""
    return _HERE / "digits"


def pictures() -> list[tuple[Path, int]]:
    """Ten JPEG photographs of digits that the model was not trained on, each with the digit it shows, in order."""
    return [(_HERE / "pictures" / f"digit-{digit}.jpg", digit) for digit in range(10)]
