"""Takes every fourth row of logits, counted from the last, out of an oracle file.

    python extract.py shared/models/oracle/NAME.safetensors NAME.safetensors

Nothing is computed: bytes of `tokens_i` and `greedy_i` are copied whole, of `logits_i` by rows.
"""

import json
import struct
import sys

source = open(sys.argv[1], "rb").read()
length = struct.unpack("<Q", source[:8])[0]
header = json.loads(source[8 : 8 + length])
entries, data = {}, b""


def tensor(name):
    start, end = (8 + length + offset for offset in header[name]["data_offsets"])
    return header[name], source[start:end]


def add(name, dtype, shape, content):
    global data
    offsets = [len(data), len(data) + len(content)]
    entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    data += content


for prompt in range(3):
    for name in (f"tokens_{prompt}", f"greedy_{prompt}"):
        info, content = tensor(name)
        add(name, info["dtype"], info["shape"], content)
    info, content = tensor(f"logits_{prompt}")
    rows, vocab = info["shape"]
    kept = [row for row in range(rows) if (rows - 1 - row) % 4 == 0]
    width = 4 * vocab
    picked = b"".join(content[row * width : (row + 1) * width] for row in kept)
    add(f"rows_{prompt}", "I32", [len(kept)], struct.pack(f"<{len(kept)}i", *kept))
    add(f"logits_{prompt}", info["dtype"], [len(kept), vocab], picked)

text = json.dumps(entries).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + data)
