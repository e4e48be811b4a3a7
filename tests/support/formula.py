"""The fixtures' formula: numbers that are a function of a name (see formula.rs)."""

import torch

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def fnv1a64(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def splitmix64(state):
    z = (state + GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(name, shape):
    """The numbers in [-1, 1) that belong to a name, f64."""
    h, count = fnv1a64(name), int(torch.Size(shape).numel())
    u = [(splitmix64((h + i * GOLDEN) & MASK) >> 40) / 2**23 - 1 for i in range(count)]
    return torch.tensor(u, dtype=torch.float64).reshape(shape)


def formula(name, shape):
    """The weight of this name, f32."""
    values = uniform(name, shape)
    if len(shape) > 1:
        fan_in = torch.Size(shape[1:]).numel()
        values = values * (3 / fan_in) ** 0.5
    else:
        values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
    return values.to(torch.float32)
