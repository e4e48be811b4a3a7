"""A Parquet file of images as bytes (N, C, H, W), by pyarrow and Pillow: the peer of
`cargo lab bench data`. Arguments: the file, the number of threads, and where to write the bytes."""

import io
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

path, threads = sys.argv[1], int(sys.argv[2])
pa.set_cpu_count(threads)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


before, start = peak(), time.perf_counter()
table = pq.read_table(path)
column = next(f.name for f in table.schema if pa.types.is_struct(f.type))
coded = table.column(column).combine_chunks().field("bytes")


def decode(i):
    image = np.asarray(Image.open(io.BytesIO(coded[i].as_py())))
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


first = decode(0)
images = np.empty((len(coded), *first.shape), np.uint8)


def part(rows):
    for i in rows:
        images[i] = decode(i)


with ThreadPoolExecutor(threads) as pool:
    step = -(-len(coded) // (8 * threads))
    list(pool.map(part, [range(i, min(i + step, len(coded))) for i in range(0, len(coded), step)]))
seconds, memory = time.perf_counter() - start, peak() - before
if len(sys.argv) > 3:
    images.tofile(sys.argv[3])
print(json.dumps({"seconds": seconds, "memory": memory}))
