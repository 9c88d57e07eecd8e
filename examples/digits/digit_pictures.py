"""Handwritten digits as somebody would photograph them: the 8x8 counts of `load_digits`, drawn large with chalk.

The data set's numbers are ink counts, 0 to 16, of 4x4 cells of a 32x32 scan; drawing turns them back into strokes.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [height, width, 3], RGB
HELD_OUT = 0.2
SPLIT_SEED = 2026


@dataclass(frozen=True, slots=True)
class Split:
    """cells: float32 [n, 8, 8], 0..1; truths: int64 [n]. The held-out part is never trained on."""

    train_cells: NDArray[np.float32]
    train_truths: NDArray[np.int64]
    held_out_cells: NDArray[np.float32]
    held_out_truths: NDArray[np.int64]


def split_digits() -> Split:
    """The data set, the same stratified fifth of it held out every time."""
    from sklearn.datasets import load_digits  # here, because writing a SavedModel needs no data
    from sklearn.model_selection import train_test_split

    cells, truths = load_digits(return_X_y=True)
    cells = (cells.reshape(-1, 8, 8) / 16).astype(np.float32)
    parts = train_test_split(cells, truths, test_size=HELD_OUT, stratify=truths, random_state=SPLIT_SEED)
    return Split(parts[0], parts[2], parts[1], parts[3])


@dataclass(frozen=True, slots=True)
class Style:
    """How one picture is drawn; colours are RGB, lengths are parts of the picture's side.

    threshold: ink above it is stroke, lower is bolder; edge: how soft the stroke's border is.
    matrix: the linear part of the drawing's placement (rotation, shear, size); shift: where its middle goes.
    """

    board: tuple[float, float, float] = (38, 54, 47)
    chalk: tuple[float, float, float] = (236, 234, 222)
    threshold: float = 0.6
    edge: float = 0.25
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.eye(2) * 0.95)
    shift: tuple[float, float] = (0.0, 0.0)
    grain: float = 3.0


def draw(cells: NDArray[np.float32], side: int, style: Style, rng: np.random.Generator) -> Picture:
    """Draw one digit. cells: float32 [8, 8], 0..1. Returns uint8 [side, side, 3]."""
    ink = _strokes(_place(cells, side, style), style)
    ink *= 1 - 0.18 * _clouds(side, side // 6 + 2, rng)  # chalk does not cover evenly
    board, chalk = np.float32(style.board), np.float32(style.chalk)
    picture = board + ink[:, :, None] * (chalk - board)
    picture += style.grain * (3 * _clouds(side, 6, rng) - 1.5)[:, :, None]  # uneven light
    picture += rng.normal(0, style.grain, (side, side, 1)).astype(np.float32)
    return picture.clip(0, 255).astype(np.uint8)


def any_style(rng: np.random.Generator) -> Style:
    """What people do: turn, slant, size and place the digit, press hard or not, on a dark board or on paper."""
    turn, slant = rng.normal(0, 0.10), rng.normal(0, 0.10)
    sizes = rng.uniform(0.7, 1.15) * rng.uniform(0.88, 1.12, 2)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    colours = [tuple(rng.uniform(0, 90) + rng.uniform(0, 25, 3)), tuple(rng.uniform(160, 230) + rng.uniform(0, 25, 3))]
    board, chalk = colours if rng.random() < 0.5 else reversed(colours)
    return Style(
        board=board,
        chalk=chalk,
        threshold=rng.uniform(0.42, 0.68),
        edge=rng.uniform(0.15, 0.6),
        matrix=rotation @ np.array([[1, slant], [0, 1]]) @ np.diag(sizes),
        shift=tuple(rng.uniform(-0.07, 0.07, 2)),
        grain=rng.uniform(0, 10),
    )


def dark_on_light(style: Style) -> Style:
    """The same drawing with ink on paper."""
    return Style(style.chalk, style.board, style.threshold, style.edge, style.matrix, style.shift, style.grain)


def encode_jpeg(picture: Picture, quality: int = 85) -> bytes:
    done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape}")
    return data.tobytes()


def shrink(picture: Picture, size: int) -> Picture:
    """What the server does to a large picture: `resize = "stretch"`."""
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def most_typical(cells: NDArray[np.float32], truths: NDArray[np.int64]) -> list[int]:
    """For each digit 0..9 the index of the example nearest to the mean of its kind."""
    chosen = []
    for digit in range(10):
        (mine,) = np.nonzero(truths == digit)
        distances = np.square(cells[mine] - cells[mine].mean(axis=0)).sum(axis=(1, 2))
        chosen.append(int(mine[distances.argmin()]))
    return chosen


def _place(cells: NDArray[np.float32], side: int, style: Style) -> NDArray[np.float32]:
    """The cells enlarged smoothly to [side, side], turned, sized and shifted."""
    large = cv2.resize(np.pad(cells, 1), (side, side), interpolation=cv2.INTER_CUBIC)  # the border rounds cut strokes
    large = cv2.GaussianBlur(large, (0, 0), side / 10 * 0.3)
    middle = np.full(2, (side - 1) / 2)
    offset = middle + np.array(style.shift) * side - style.matrix @ middle
    return cv2.warpAffine(large, np.column_stack([style.matrix, offset]), (side, side), flags=cv2.INTER_LINEAR)


def _strokes(ink: NDArray[np.float32], style: Style) -> NDArray[np.float32]:
    """Grey smears to strokes with a border `edge` wide (smoothstep around the threshold)."""
    ramp = ((ink - style.threshold) / style.edge + 0.5).clip(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _clouds(side: int, cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise [side, side], about 0..1, `cells` spots along a side."""
    spots = rng.random((cells, cells), dtype=np.float32)
    return cv2.resize(spots, (side, side), interpolation=cv2.INTER_LINEAR)
