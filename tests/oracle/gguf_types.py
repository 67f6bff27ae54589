"""Writes gguf_types.json: blocks of every quantized GGUF type that HiveMind reads, and their values by ggml's own Python package.

The blocks are made up: random bits, and scales of the sizes that models have. The Rust side of it is
crates/hive-weights/tests/common/oracle.rs.

Usage: pip install -r requirements.txt && python gguf_types.py gguf_types.json
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

ROWS, COLUMNS = 2, 256

# Where a block has its half-precision scales and minimums.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
}


def text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def main() -> None:
    random = np.random.default_rng(20)
    types = []
    for name, halves in HALVES.items():
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (ROWS * COLUMNS // elements, size), dtype=np.uint8)
        for at in halves:
            scales = random.normal(0, 0.01, len(blocks)).astype("<f2")
            blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        if name == "MXFP4":
            blocks[:, 0] = random.integers(100, 140, len(blocks))
        blocks = blocks.reshape(ROWS, -1)
        values = dequantize(blocks, kind).astype("<f4")
        assert values.shape == (ROWS, COLUMNS) and np.isfinite(values).all()
        types.append({"name": name, "number": int(kind), "blocks": text(blocks), "values": text(values)})
    Path(sys.argv[1]).write_text(json.dumps({"rows": ROWS, "columns": COLUMNS, "types": types}, indent=1) + "\n")


main()
