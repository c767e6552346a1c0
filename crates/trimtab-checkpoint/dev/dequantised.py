"""Writes tests/it/dequantised.json: blocks of every element type and the values that they stand for.

The values come from the `gguf` package, llama.cpp's own Python implementation, which shares no code with this crate.
Run with gguf 0.19 and numpy 2.4: `python3 dev/dequantised.py > tests/it/dequantised.json`.
"""

import json

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

# Elements and bytes per block, and the bytes at which half-precision scales lie.
TYPES = {
    "F32": (Type.F32, 1, 4, []),
    "F16": (Type.F16, 1, 2, []),
    "BF16": (Type.BF16, 1, 2, []),
    "Q4_0": (Type.Q4_0, 32, 18, [0]),
    "Q4_1": (Type.Q4_1, 32, 20, [0, 2]),
    "Q5_0": (Type.Q5_0, 32, 22, [0]),
    "Q5_1": (Type.Q5_1, 32, 24, [0, 2]),
    "Q8_0": (Type.Q8_0, 32, 34, [0]),
    "Q4_K": (Type.Q4_K, 256, 144, [0, 2]),
    "Q5_K": (Type.Q5_K, 256, 176, [0, 2]),
    "Q6_K": (Type.Q6_K, 256, 210, [208]),
}


def blocks(rng, name, num_bytes, scales):
    """Two blocks of random bits under ordinary scales; of the plain types, numbers of every magnitude."""
    if name == "F32":
        return rng.normal(size=67).astype("<f4").view(np.uint8)
    if name == "F16":
        # Includes subnormal numbers, both zeros and the largest finite ones.
        odd = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x0400], "<u2").view("<f2")
        return np.concatenate([odd, rng.normal(size=60).astype("<f2")]).view(np.uint8)
    if name == "BF16":
        return (rng.normal(size=67).astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    out = rng.integers(0, 256, size=(2, num_bytes), dtype=np.uint8)
    for at in scales:
        out[:, at : at + 2] = rng.normal(size=(2, 1)).astype("<f2").view(np.uint8)
    return out.reshape(-1)


def values(data, name, kind):
    """`dequantize` reads plain types as their numpy types."""
    if name in ("F32", "F16"):
        return data.view("<f4" if name == "F32" else "<f2").astype("<f4")
    return dequantize(data.reshape(1, -1), kind).reshape(-1).astype("<f4")


def main():
    rng = np.random.default_rng(20261125)
    out = {}
    for name, (kind, block_len, num_bytes, scales) in TYPES.items():
        data = blocks(rng, name, num_bytes, scales)
        expected = values(data, name, kind)
        assert expected.size == data.size // num_bytes * block_len and np.isfinite(expected).all(), name
        out[name] = {"bytes": data.tobytes().hex(), "values": expected.tobytes().hex()}
    print(json.dumps(out, indent=1))


main()
