"""Resizing, cropping, mirroring and normalising one image: the functions that are compiled.

numba takes stored code for current as long as the file of the function itself is unchanged, so all of it is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic, overload

# OpenCV's weights are whole multiples of 1 / 2048 (INTER_RESIZE_COEF_BITS).
WEIGHT_SCALE = np.float32(2048)
CHANNELS = 3
HALF = np.float32(0.5)
FOUR, FOUR_INDICES = ir.VectorType(ir.FloatType(), 4), ir.VectorType(ir.IntType(32), 4)
UNDEFINED = ir.Constant(FOUR, ir.Undefined)
# OpenCV's bilinear interpolation of bytes cuts two products off to quarters of a level before it rounds, so that its
# levels are an eighth too low in the mean.
ROUNDING = np.float32(0.5 - 0.125)
# A product and a sum may be one operation. Blending rows is exact either way, as its weights have few digits.
CONTRACT = ("contract",)
OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy", "fastmath": set(CONTRACT)}
_inner = njit(**OPTIONS)


@_inner  # type: ignore[untyped-decorator]
def taps(count: int, source: int, resized: int, first: int) -> Any:
    """The left one of the two source pixels of each pixel of a resized line, and the right one's weight.

    The line has source pixels, and resized ones, of which count from number first on are wanted. As in OpenCV's
    INTER_LINEAR, pixels are sampled at their centres, and those beyond the border repeat. Returns indices and weights.
    """
    lefts, weights = np.empty(count, np.int64), np.empty(count, np.float32)
    scale = source / resized
    for index in range(count):
        place = np.float32((first + index + 0.5) * scale - 0.5)
        left = np.floor(place)
        weight = np.rint((place - left) * WEIGHT_SCALE) / WEIGHT_SCALE
        if left < 0:
            left, weight = np.float32(0), np.float32(0)
        # The last pixel is the right one of a pair, wherever there are two.
        if left >= source - 1:
            left, weight = np.float32(max(source - 2, 0)), np.float32(min(source - 1, 1))
        lefts[index], weights[index] = int(left), weight
    return lefts, weights


@_inner  # type: ignore[untyped-decorator]
def blend(upper: Any, lower: Any, weight: Any, row: Any) -> None:
    """Write the mean of two lines of bytes into row, of which lower has this weight."""
    rest = np.float32(1) - weight
    for index in range(upper.size):
        row[index] = rest * np.float32(upper[index]) + weight * np.float32(lower[index])


@intrinsic  # type: ignore[untyped-decorator]
def _four_pixels(
    _: Any, row: Any, offsets: Any, step: Any, weights: Any, normal: Any, red: Any, green: Any, blue: Any, start: Any
) -> Any:
    """Sample a blended row at four output pixels, and write them, normalised, into a line for each channel.

    It is written in LLVM's instructions, as LLVM doesn't use vectors here by itself. Values are float32, offsets and
    step uint32; row has one value more than its pixels need.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> None:
        names = ("row", "offsets", "step", "weights", "normal", "red", "green", "blue", "start")
        value, kind = dict(zip(names, values, strict=True)), dict(zip(names, signature.args, strict=True))
        place = context.cast(builder, value["start"], kind["start"], types.int64)

        def address(name: str, offset: Any) -> Any:
            return builder.gep(context.make_array(kind[name])(context, builder, value[name]).data, [offset])

        def number(constant: int) -> Any:
            return ir.Constant(ir.IntType(64), constant)

        def four(name: str, offset: Any) -> Any:
            return builder.load(builder.bitcast(address(name, offset), FOUR.as_pointer()), align=4)

        def mixed(first: Any, second: Any, *places: int) -> Any:
            return builder.shuffle_vector(first, second, ir.Constant(FOUR_INDICES, places))

        def everywhere(scalar: Any) -> Any:
            return mixed(builder.insert_element(UNDEFINED, scalar, number(0)), UNDEFINED, 0, 0, 0, 0)

        def multiplied(first: Any, second: Any, summand: Any) -> Any:
            return builder.fadd(builder.fmul(first, second, flags=CONTRACT), summand, flags=CONTRACT)

        step = builder.zext(value["step"], ir.IntType(64))
        pixels = []
        for index in range(4):
            here = builder.add(place, number(index))
            left = builder.zext(builder.load(address("offsets", here)), ir.IntType(64))
            nearer, further = four("row", left), four("row", builder.add(left, step))
            weight = everywhere(builder.load(address("weights", here)))
            pixels.append(multiplied(weight, builder.fsub(further, nearer), nearer))
        # From pixels of three channels and one value beyond to channels of four pixels.
        upper = [mixed(pixels[at], pixels[at + 1], 0, 4, 1, 5) for at in (0, 2)]
        lower = [mixed(pixels[at], pixels[at + 1], 2, 6, 3, 7) for at in (0, 2)]
        channels = {
            "red": mixed(*upper, 0, 1, 4, 5),
            "green": mixed(*upper, 2, 3, 6, 7),
            "blue": mixed(*lower, 0, 1, 4, 5),
        }
        rounding = ir.Constant(FOUR, [float(ROUNDING)] * 4)
        for index, (name, level) in enumerate(channels.items()):
            whole = builder.sitofp(builder.fptosi(builder.fadd(level, rounding), FOUR_INDICES), FOUR)
            factor, summand = (
                everywhere(builder.load(address("normal", number(index + CHANNELS * part)))) for part in (0, 1)
            )
            target = builder.bitcast(address(name, place), FOUR.as_pointer())
            builder.store(multiplied(whole, factor, summand), target, align=4)

    return types.void(row, offsets, step, weights, normal, red, green, blue, start), generate


@_inner  # type: ignore[untyped-decorator]
def gather(row: Any, offsets: Any, step: Any, weights: Any, normal: Any, lines: Any) -> None:
    """Sample a blended row at each output pixel, round and normalise, into lines, one for each channel."""
    red, green, blue = lines
    for start in range(0, offsets.size - 3, 4):
        _four_pixels(row, offsets, step, weights, normal, red, green, blue, start)
    if offsets.size % 4:
        # The last four, of which some are done already.
        _four_pixels(row, offsets, step, weights, normal, red, green, blue, offsets.size - 4)


def finish(row: Any, offsets: Any, step: Any, weights: Any, normal: Any, lines: Any, out: Any, index: int) -> None:
    """`gather` into the output's line of this number; lines [3, width] are for values on their way."""


@overload(finish, jit_options=OPTIONS)  # type: ignore[untyped-decorator]
def _finish(
    row: Any, offsets: Any, step: Any, weights: Any, normal: Any, lines: Any, out: Any, index: int
) -> Callable[..., None]:
    del row, offsets, step, weights, normal, lines, index
    # numba has no float16 on CPUs.
    return _finish_float32 if out.dtype == types.float32 else _finish_float16


def _finish_float32(
    row: Any, offsets: Any, step: Any, weights: Any, normal: Any, lines: Any, out: Any, index: int
) -> None:
    if out.shape[0] == CHANNELS:
        gather(row, offsets, step, weights, normal, (out[0, index], out[1, index], out[2, index]))
        return
    gather(row, offsets, step, weights, normal, (lines[0], lines[1], lines[2]))
    for column in range(offsets.size):
        for channel in range(CHANNELS):
            out[index, column, channel] = lines[channel, column]


def _finish_float16(
    row: Any, offsets: Any, step: Any, weights: Any, normal: Any, lines: Any, out: Any, index: int
) -> None:
    gather(row, offsets, step, weights, normal, (lines[0], lines[1], lines[2]))
    for channel in range(CHANNELS):
        if out.shape[0] == CHANNELS:
            write_halves(lines[channel], out[channel, index])
        else:
            write_halves(lines[channel], out[index, :, channel])


@_inner  # type: ignore[untyped-decorator]
def write_halves(values: Any, target: Any) -> None:
    """Write float32 below 65,520 as the bits of float16, rounded to the nearest, ties to even."""
    bits = values.view(np.uint32)
    # Below 2^-14 float16 has steps of 2^-24, which are the last digits of a float32 between a half and one.
    small = (np.abs(values) + HALF).view(np.uint32)
    for index in range(values.size):
        magnitude = bits[index] & np.uint32(0x7FFFFFFF)
        sign = (bits[index] >> np.uint32(16)) & np.uint32(0x8000)
        rounded = magnitude + np.uint32(0xFFF) + ((magnitude >> np.uint32(13)) & np.uint32(1))
        usual = (rounded >> np.uint32(13)) - np.uint32((127 - 15) << 10)
        tiny = small[index] - np.uint32(0x3F000000)
        target[index] = np.uint16(sign | (tiny if magnitude < np.uint32(0x38800000) else usual))


@_inner  # type: ignore[untyped-decorator]
def prepare(image: Any, mirror: int, cover: Any, normal: Any, out: Any) -> None:
    """Resize, crop, mirror and normalise an image [height, width, 3] of bytes into out, see `operator.prepared`.

    out is [3, height, width] or [height, width, 3], of float32, or of uint16 for the bits of float16. cover are the
    height and width that the resized image just covers; 0 and 0 if it becomes the whole of out.
    """
    height, width = image.shape[0], image.shape[1]
    first = 1 if out.shape[0] == CHANNELS else 0
    down, right = out.shape[first], out.shape[first + 1]
    rows, columns = down, right
    if cover[0]:
        share = max(cover[0] / height, cover[1] / width)
        rows, columns = int(np.rint(height * share)), int(np.rint(width * share))
    tops, row_weights = taps(down, height, rows, (rows - down) // 2)
    lefts, weights = taps(right, width, columns, (columns - right) // 2)
    # Of the source's lines only what lies between the outermost sampled pixels is blended.
    begin, end = lefts[0], min(lefts[-1] + 2, width)
    if mirror:
        lefts, weights = lefts[::-1].copy(), weights[::-1].copy()
    offsets, step = (CHANNELS * (lefts - begin)).astype(np.uint32), np.uint32(CHANNELS if width > 1 else 0)
    source, line, length = image.reshape(image.size), CHANNELS * width, CHANNELS * (end - begin)
    row = np.empty(length + 1, np.float32)
    lines = np.empty((CHANNELS, right), np.float32)
    for index in range(down):
        upper = tops[index] * line + CHANNELS * begin
        lower = upper + (line if height > 1 else 0)
        blend(source[upper : upper + length], source[lower : lower + length], row_weights[index], row)
        finish(row, offsets, step, weights, normal, lines, out, index)


# A sample's inputs, in DALI's order.
IMAGE, MIRROR, COVER, NORMAL, TEMPLATE = range(5)


def shape_outputs(out_shapes: Any, _d: Any, _o: int, in_shapes: Any, _e: Any, _i: int, samples: int) -> None:
    """Each sample's output has the template's shape; see `stored_code.SETUP`."""
    for index in range(samples):
        for axis in range(3):
            out_shapes[index][axis] = in_shapes[TEMPLATE * samples + index][axis]


@_inner  # type: ignore[untyped-decorator]
def prepare_at(outs: Any, out_shapes: Any, ins: Any, in_shapes: Any, dtype: Any) -> None:
    """`prepare` with the arrays at the addresses that DALI gives."""
    image_shape, out_shape = in_shapes[IMAGE], out_shapes[0]
    prepare(
        carray(ins[IMAGE], (image_shape[0], image_shape[1], image_shape[2]), np.uint8),
        carray(ins[MIRROR], 1, np.int32)[0],
        carray(ins[COVER], 2, np.int32),
        carray(ins[NORMAL], (2, CHANNELS), np.float32),
        carray(outs[0], (out_shape[0], out_shape[1], out_shape[2]), dtype),
    )


def run_float32(outs: Any, out_shapes: Any, _d: Any, _o: int, ins: Any, in_shapes: Any, _e: Any, _i: int) -> None:
    """A sample into float32; see `stored_code.RUN`."""
    prepare_at(outs, out_shapes, ins, in_shapes, np.float32)


def run_float16(outs: Any, out_shapes: Any, _d: Any, _o: int, ins: Any, in_shapes: Any, _e: Any, _i: int) -> None:
    """A sample into the bits of float16; see `stored_code.RUN`."""
    prepare_at(outs, out_shapes, ins, in_shapes, np.uint16)
