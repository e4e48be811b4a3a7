"""Checkpoints of diffusers sampled here and there, and ours sampled there and here.

    PYTHON tests/peers/diffusers_peer.py [--out reproductions/bench/diffusers-peer.md]

PYTHON is an interpreter that has torch and diffusers; run it from the project's root. Each
case is a line: the largest difference between two samples of the same noise, on the scale
[-1, 1] of the images. It fails above 1e-3.
"""

import argparse
import math
import pathlib
import platform
import subprocess
import sys
import tempfile

import diffusers
import numpy
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
    DDPMPipeline,
    DDPMScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

LIMIT = 1e-3
COUNT = 3

RESNET = {
    "sample_size": 32,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attn_norm_num_groups": 32,
    "norm_eps": 1e-5,
    "layers_per_block": 1,
}
# The layouts of the published networks, with few channels.
IMAGENET = {
    **RESNET,
    "block_out_channels": (32, 64),
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 8,
    "num_class_embeds": 10,
}
LSUN = {
    **RESNET,
    "block_out_channels": (32, 32, 64),
    "down_block_types": ("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
    "attention_head_dim": 16,
}
CIFAR = {
    "sample_size": 32,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "layers_per_block": 1,
}


def network(config, seed):
    """A network with random weights, those of the last convolution too."""
    generator = torch.Generator().manual_seed(seed)
    model = UNet2DModel(**config).eval()
    for name, parameter in model.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.copy_(noise / math.sqrt(parameter[0].numel()))
        else:
            parameter.copy_(0.1 * noise + (1 if name.endswith("weight") else 0))
    # Large enough that some pixels are clipped.
    model.conv_out.weight.mul_(2)
    return model


def ours(folder, noise, arguments):
    """Samples of the project's own program."""
    with tempfile.TemporaryDirectory() as place:
        given, got = pathlib.Path(place, "latents"), pathlib.Path(place, "samples")
        save_file(noise, given)
        command = ["cargo", "run", "--release", "-q", "--package", "consistency-cli", "--"]
        command += ["sample", "--model", str(folder), "--latents", str(given)]
        command += ["--tensors", str(got), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return load_file(got)["samples"]


def theirs(pipeline, steps, label):
    """Samples of diffusers' pipeline, from [0, 1] back to [-1, 1]. (It takes noise that is given
    for images of three channels only, so it draws its own.)"""
    answer = pipeline(
        batch_size=COUNT,
        class_labels=None if label is None else [label] * COUNT,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    )
    return 2 * torch.as_tensor(answer.images) - 1


def noise_for(shape):
    """What the pipeline and its scheduler draw with the generator above, in that order."""
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=generator) for name in ("latents", "noise.1")}


def consistency(folder, title, label=None):
    """One and two steps of the consistency model in `folder`, both ways."""
    pipeline = ConsistencyModelPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.unet.config
    noise = noise_for((COUNT, config.in_channels, config.sample_size, config.sample_size))
    for steps in (1, 2):
        arguments = ["--steps", str(steps)]
        if label is not None:
            arguments += ["--class", str(label)]
        there = theirs(pipeline, steps, label)
        here = ours(folder, noise, arguments)
        inside = (there.abs() < 1).double().mean().item()
        yield f"{title}, {steps} step{'s' * (steps > 1)}", (here - there).abs().max().item(), inside


def heun(model, scheduler, start, points):
    """Heun's method on the PF ODE of a noise predictor, written from its formulas."""
    kept = numpy.cumprod(1 - numpy.linspace(1e-4, 0.02, scheduler.config.num_train_timesteps))
    sigmas = numpy.sqrt((1 - kept) / kept)
    low, high = sigmas[0] ** (1 / 7), sigmas[-1] ** (1 / 7)
    grid = (high + numpy.arange(points) / (points - 1) * (low - high)) ** 7

    def slope(x, sigma):
        step = numpy.interp(math.log(sigma), numpy.log(sigmas), numpy.arange(len(sigmas)))
        scaled = (x / math.sqrt(1 + sigma * sigma)).float()
        # dx/dsigma = (x - D) / sigma, which is the predicted noise.
        return model(scaled, torch.tensor(step)).sample.double()

    x = start.double() * grid[0]
    for a, b in zip(grid, grid[1:]):
        first = slope(x, a)
        x = x + (b - a) / 2 * (first + slope(x + (b - a) * first, b))
    return x.float()


def cases(place):
    for title, config, points, label in (
        ("diffusers to ours: class-conditional, ImageNet's layout", IMAGENET, 40, 3),
        ("diffusers to ours: unconditional, LSUN's layout", LSUN, 151, None),
    ):
        folder = place / f"model-{points}"
        scheduler = CMStochasticIterativeScheduler(num_train_timesteps=points)
        ConsistencyModelPipeline(network(config, points), scheduler).save_pretrained(folder)
        yield from consistency(folder, title, label)

    folder, points = place / "ddpm", 6
    model, scheduler = network(CIFAR, 5), DDPMScheduler()
    DDPMPipeline(model, scheduler).save_pretrained(folder)
    noise = {"latents": noise_for((COUNT, 3, 32, 32))["latents"]}
    there = heun(model, scheduler, noise["latents"], points)
    here = ours(folder, noise, ["--steps", str(points)])
    # A random network's samples are as large as its noise: relative to the largest.
    gap = ((here - there).abs().max() / there.abs().max()).item()
    yield "diffusers to ours: DDPM's teacher, Heun on 6 points (share of the largest)", gap, 1.0

    folder = place / "exported"
    command = ["cargo", "run", "--release", "-q", "--package", "consistency"]
    command += ["--example", "export", "--", str(folder)]
    subprocess.run(command, check=True)
    yield from consistency(folder, "ours to diffusers: digits, exported")


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(rows):
    lines = [
        "# Samples beside diffusers",
        "",
        f"Made by `tests/peers/diffusers_peer.py`: torch {torch.__version__}, diffusers "
        f"{diffusers.__version__}, Python {platform.python_version()}, {processor()}. The same "
        f"weights and the same noise on both sides, {COUNT} samples a case, f32 on the CPU; networks "
        "are small and random but for the last, which was trained for 200 steps. The limit is "
        f"{LIMIT:g}.",
        "",
        "| case | largest difference, images in [-1, 1] | pixels not clipped |",
        "|---|---|---|",
    ]
    lines += [f"| {title} | {gap:.1e} | {inside:.0%} |" for title, gap, inside in rows]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="write a table there")
    out = parser.parse_args().out
    diffusers.utils.logging.set_verbosity_error()
    rows = []
    with torch.no_grad(), tempfile.TemporaryDirectory() as place:
        for title, gap, inside in cases(pathlib.Path(place)):
            print(f"{title}: {gap:.2e} ({inside:.0%} of the pixels not clipped)", flush=True)
            rows.append((title, gap, inside))
    if out:
        pathlib.Path(out).write_text(table(rows))
    # A NaN is too far as well.
    if not all(gap <= LIMIT for _, gap, _ in rows):
        sys.exit(f"further apart than {LIMIT:g}")


main()
