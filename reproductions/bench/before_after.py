"""Two builds of the library side by side: the speed of a training step, and the bits of a run.

    before_after.py speed BEFORE AFTER [PAIRS] [CASE ..]
        BEFORE and AFTER are two builds of the benchmark `engine` (target/release/deps/engine-*, as
        `cargo lab bench train` makes them). Each case runs in both in turn, the first of a pair
        changing from pair to pair, 10 pairs unless told otherwise; prints a table.
    before_after.py bits BEFORE AFTER
        Two checkpoints: how many of their tensors are the same bytes.
"""

import hashlib
import json
import random
import statistics
import struct
import subprocess
import sys

CASES = [
    "digits MLP",
    "digits U-Net",
    "attention 128x16x16",
    "3x3 convolution 64x32x32",
    "3x3 convolution 128x16x16",
    "group norm + SiLU 64x32x32",
    "group norm + SiLU 128x16x16",
    "32x32 U-Net",
    "32x32 U-Net, activation checkpointing",
    "NCSN++",
]


def one(program, case):
    """The median step of a case, in seconds."""
    run = subprocess.run([program, "train", "--one", case], capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode or not lines:
        sys.exit(f"{program}, {case}: {run.stderr or run.stdout}")
    return json.loads(lines[-1])["ours"][0]


def speed(before, after, pairs="10", *cases):
    print("| case | pairs | before, ms | after, ms | ratio, median | 95 % interval |")
    print("|---|---|---|---|---|---|")
    draw = random.Random(0)
    for case in cases or CASES:
        times = []
        for i in range(int(pairs)):
            both = {p: one(p, case) for p in ([before, after] if i % 2 == 0 else [after, before])}
            times.append((both[before], both[after]))
        ratios = [b / a for a, b in times]
        resampled = sorted(
            statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(4000)
        )
        first, second = (1e3 * statistics.median(t) for t in zip(*times))
        print(
            f"| {case} | {len(times)} | {first:.2f} | {second:.2f} "
            f"| {statistics.median(ratios):.3f} | {resampled[100]:.3f} to {resampled[3899]:.3f} |",
            flush=True,
        )


def tensors(path):
    """The type, shape and hash of each tensor of a safetensors file."""
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: (of["dtype"], of["shape"], hashlib.sha256(body[slice(*of["data_offsets"])]).digest())
        for name, of in header.items()
    }


def bits(before, after):
    before, after = tensors(before), tensors(after)
    other = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    print(f"{len(before)} and {len(after)} tensors, {len(other)} of them differ: {other[:5]}")


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in ("speed", "bits"):
        sys.exit(__doc__)
    {"speed": speed, "bits": bits}[sys.argv[1]](*sys.argv[2:])
