"""Dot products, convolutions and linear layers over blocks: whole numbers within a block, fp32 between blocks.

Rule 9 of docs/fpga_numerics.md. A layer is a set of dot products over a row of blocks; `Sums` holds what each pair of
blocks gave, exactly, and adds it up in two ways: once without any rounding but the last, and as a card would that adds
blocks one by one in fp32. Numbers are Python's integers where they may be long.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from reference_formats import Bfp, Blocks, Floats, Integers, Mx, quantize

Whole = NDArray[np.object_]  # Python's integers
FP32_BITS = 24
FP32_LOWEST_LSB = -149
FP32_HIGHEST = 128


@dataclass(frozen=True, slots=True)
class Sums:
    """Of every output [...]: its blocks' dot products `partials` * 2**`steps`, both [..., blocks].

    absolutes [..., blocks]: the same sums over |a * w|. undefined [...]: a block with NaN or infinity took part.
    terms: products in each sum.
    """

    partials: Whole
    absolutes: Whole
    steps: Integers
    undefined: NDArray[np.bool_]
    terms: int

    def exact(self) -> Floats:
        """The sum of all blocks without a rounding but the one to fp32."""
        finest = self._finest()
        return self._defined(nearest_fp32(_aligned(self.partials, self.steps, finest), finest))

    def in_order(self) -> Floats:
        """Each block's sum rounded to fp32, then added in fp32, from the first block to the last."""
        terms = nearest_fp32(self.partials, self.steps)
        total = np.zeros(terms.shape[:-1], np.float32)
        for block in range(terms.shape[-1]):
            total = total + terms[..., block]
        return self._defined(total)

    def order_is_free(self) -> NDArray[np.bool_]:
        """The 24-bit bound: any order of adding in fp32, even product by product, gives `exact`.

        All products and partial sums are multiples of the finest step, and fewer than 2**24 of it.
        """
        finest = self._finest()
        units = _aligned(self.absolutes, self.steps, finest)
        fits = np.array(units < 2**FP32_BITS, bool)
        return fits & (finest >= FP32_LOWEST_LSB) & (finest + FP32_BITS <= FP32_HIGHEST)

    def tolerance(self) -> NDArray[np.float64]:
        """What n additions in fp32 may be off by, in any order: n * 2**-24 * sum|a * w|."""
        absolutes = np.ldexp(self.absolutes.astype(np.float64), self.steps).sum(axis=-1)
        return self.terms * 2.0**-FP32_BITS * absolutes

    def _finest(self) -> Integers:
        """The smallest step among the blocks that are not zero, of every output."""
        present = np.array(self.absolutes != 0, bool)
        lowest = np.where(present, self.steps, np.iinfo(np.int64).max).min(axis=-1)
        return np.where(present.any(axis=-1), lowest, 0)

    def _defined(self, values: Floats) -> Floats:
        return np.where(self.undefined, np.float32(np.nan), values)


def dots(inputs: Blocks, weights: Blocks) -> Sums:
    """inputs [..., blocks, block] with each row of weights [outputs, blocks, block]: Sums [..., outputs, blocks]."""
    a = inputs.mantissas.astype(object)[..., None, :, :]
    w = weights.mantissas.astype(object)
    products = a * w
    return Sums(
        products.sum(axis=-1),
        abs(products).sum(axis=-1),
        inputs.steps[..., None, :] + weights.steps,
        (inputs.undefined[..., None, :] | weights.undefined).any(axis=-1),
        inputs.length,
    )


def linear(x: Floats, weights: Floats, form: Bfp | Mx) -> Sums:
    """x [..., features], weights [outputs, features]: blocks along the features of both."""
    return dots(quantize(x, form), quantize(weights, form))


def conv(
    x: Floats, weights: Floats, form: Bfp | Mx, *, stride: int = 1, pad: int = 0, groups: int = 1, im2col: bool = False
) -> Sums:
    """x [n, channels, h, w], weights [outputs, channels / groups, kh, kw]: Sums [n, h, w, outputs, blocks].

    Blocks lie along the channels that one output sums over, each tap (kh, kw) apart; a group's blocks are its own.
    im2col: blocks lie along (kh, kw, channel) flattened, the padding's zeros among them.
    """
    per_group = [
        _conv_group(part, kernel, form, stride, pad, im2col)
        for part, kernel in zip(np.split(x, groups, axis=1), np.split(weights, groups), strict=True)
    ]

    def joined(name: str) -> NDArray:
        return np.concatenate([getattr(sums, name) for sums in per_group], axis=3)

    return Sums(joined("partials"), joined("absolutes"), joined("steps"), joined("undefined"), per_group[0].terms)


def _conv_group(x: Floats, weights: Floats, form: Bfp | Mx, stride: int, pad: int, im2col: bool) -> Sums:
    taps = weights.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)]).transpose(0, 2, 3, 1)
    kernels = weights.transpose(0, 2, 3, 1)
    if im2col:
        patches = np.concatenate(_taps(padded, taps, stride), axis=-1)
        return linear(patches, kernels.reshape(len(kernels), -1), form)
    pixels, rows = quantize(padded, form), quantize(kernels, form)
    terms = math.prod(weights.shape[1:])
    return dots(
        Blocks(
            np.concatenate(_taps(pixels.mantissas, taps, stride), axis=-2),
            np.concatenate(_taps(pixels.steps, taps, stride), axis=-1),
            np.concatenate(_taps(pixels.undefined, taps, stride), axis=-1),
            terms,
        ),
        Blocks(
            rows.mantissas.reshape(len(kernels), -1, rows.mantissas.shape[-1]),
            rows.steps.reshape(len(kernels), -1),
            rows.undefined.reshape(len(kernels), -1),
            terms,
        ),
    )


def _taps(pixels: NDArray, taps: Sequence[int], stride: int) -> list[NDArray]:
    """For each tap (kh, kw), in this order, the pixels of [n, h, w, ...] that it meets: [n, oh, ow, ...]."""
    height, width = ((size - tap) // stride + 1 for size, tap in zip(pixels.shape[1:3], taps, strict=True))
    return [
        pixels[:, top : top + stride * height : stride, left : left + stride * width : stride]
        for top in range(taps[0])
        for left in range(taps[1])
    ]


def nearest_fp32(whole: Whole, exponents: Integers) -> Floats:
    """whole * 2**exponents to the nearest fp32, ties to even; beyond the largest: infinity."""
    rounded = [_nearest_fp32(int(n), int(e)) for n, e in zip(whole.flat, exponents.flat, strict=True)]
    return np.array(rounded, np.float32).reshape(whole.shape)


def _nearest_fp32(whole: int, exponent: int) -> float:
    places = max(abs(whole).bit_length() - FP32_BITS, FP32_LOWEST_LSB - exponent, 0)
    kept, rest = divmod(abs(whole), 1 << places)
    twice = 2 * rest
    kept += twice > 1 << places or (twice == 1 << places and kept % 2)
    if kept.bit_length() + exponent + places > FP32_HIGHEST:
        return math.copysign(math.inf, whole)
    return math.copysign(math.ldexp(kept, exponent + places), whole)


def _aligned(whole: Whole, steps: Integers, finest: Integers) -> Whole:
    """The sum over the last axis, in units of 2**finest."""
    places = np.where(np.array(whole != 0, bool), steps - finest[..., None], 0)
    return (whole * (2 ** places.astype(object))).sum(axis=-1)
