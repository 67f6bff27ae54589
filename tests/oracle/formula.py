"""Tensors by formula: every number follows from the seed, the tensor's name and its kind, so no weights are committed.

crates/hive-model/tests/common/formula.rs computes the same bits. The kinds:

    float SCALE OFFSET            single precision: unit · SCALE + OFFSET, with unit in [-0.5, 0.5)
    float SCALE OFFSET zero A B   the same, but rows A to B (B not included) are zero
    affine BITS GROUP             NAME.weight, NAME.scales and NAME.biases, as MLX quantizes; the shape is the matrix's
    mxfp4                         NAME.weight and NAME.scales: 4-bit floats, a power of two for 32 of them
    mxfp8                         the same with 8-bit floats (e4m3)
    nvfp4                         4-bit floats, an 8-bit float for 16 of them
"""

import hashlib
import math

import mlx.core as mx
import numpy as np

MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407
WORD = 0xFFFFFFFFFFFFFFFF


def numbers(name, count):
    """`count` numbers of 31 bits from a name: a linear congruential generator, seeded by FNV-1a."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) & WORD
    first = (state * MULTIPLIER + INCREMENT) & WORD
    states = np.array([first], dtype=np.uint64)
    # A step of n is a linear map, too: the first n states give the next n.
    multiplier, increment = MULTIPLIER, INCREMENT
    with np.errstate(over="ignore"):
        while len(states) < count:
            states = np.concatenate([states, states * np.uint64(multiplier) + np.uint64(increment)])
            increment = (multiplier * increment + increment) & WORD
            multiplier = (multiplier * multiplier) & WORD
    return (states[:count] >> np.uint64(33)).astype(np.uint32)


def floats(name, count, scale, offset):
    unit = numbers(name, count).astype(np.float32) / np.float32(2**31) - np.float32(0.5)
    return unit * np.float32(scale) + np.float32(offset)


def words(name, shape):
    count = math.prod(shape)
    return (numbers(name, count) ^ (numbers(name + "+", count) << np.uint32(16))).reshape(shape)


def made(seed, name, shape, kind):
    """The tensors on disk of one entry: {name: array}."""
    what, *parameters = kind.split(" ")
    at = f"{seed}/{name}"
    if what == "float":
        scale, offset, *rest = parameters
        values = floats(at, math.prod(shape), scale, offset).reshape(shape)
        if rest:
            values[int(rest[1]) : int(rest[2])] = 0
        return {name: mx.array(values)}
    bits, group = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}.get(what) or map(int, parameters)
    *rows, columns = shape
    packed = words(at, [*rows, columns * bits // 32])
    groups = [*rows, columns // group]
    if what == "affine":
        # Then a matrix has numbers of about 1 / sqrt(columns), like a trained one.
        step = np.float32(math.sqrt(12 / columns) / 2**bits)
        scales = floats(f"{at}.scales", math.prod(groups), step * np.float32(0.2), step).reshape(groups)
        return {
            f"{name}.weight": mx.array(packed),
            f"{name}.scales": mx.array(scales),
            f"{name}.biases": mx.array(-scales * np.float32((2**bits - 1) / 2)),
        }
    if what == "mxfp8":
        # Below 2: the exponent's upper bit is clear, so that none is NaN.
        packed &= np.uint32(0xBFBFBFBF)
    choice = (numbers(f"{at}.scales", math.prod(groups)) >> np.uint32(29)).astype(np.uint8).reshape(groups)
    if what == "nvfp4":
        # e4m3: an exponent of one, and two bits of the mantissa.
        base = np.uint8((7 + math.floor(math.log2(0.4 / math.sqrt(columns)))) << 3)
        scales = base + choice * np.uint8(2)
    else:
        # e8m0: one of four powers of two.
        size = {"mxfp4": 0.4, "mxfp8": 2.0}[what]
        scales = np.uint8(126 + math.floor(math.log2(size / math.sqrt(columns)))) + choice % np.uint8(3)
    return {f"{name}.weight": mx.array(packed), f"{name}.scales": mx.array(scales)}


def write(folder, seed, tensors):
    """Writes the weights of a folder, and returns a digest of their names and bits."""
    arrays = {}
    for name, shape, kind in tensors:
        arrays.update(made(seed, name, shape, kind))
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        hasher.update(name.encode() + np.array(arrays[name]).tobytes())
    return hasher.hexdigest()
