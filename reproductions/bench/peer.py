"""The same networks in PyTorch, timed one call at a time at the word of `cargo lab bench`.

usage: peer.py CASE.json WEIGHTS.safetensors THREADS DEVICE

Reads lines from its standard input: "check" answers with the output's file, "run LAYOUT"
with the seconds of one call, "memory LAYOUT" with the bytes above those before the model.
"""
import json
import math
import os
import struct
import sys
import time

import torch
import torch.nn.functional as F


def read(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            values = torch.frombuffer(data, dtype=torch.float32, count=(end - start) // 4, offset=start)
            tensors[name] = values.clone().reshape(entry["shape"])
    return tensors


def resident(field):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


class Weights:
    """Parameters by name, under a prefix."""

    def __init__(self, tensors, prefix=""):
        self.tensors, self.prefix = tensors, prefix

    def at(self, name):
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def get(self, name):
        return self.tensors[self.prefix + name]

    def has(self, name):
        return self.prefix + name in self.tensors


def conv(w, x, stride=1, padding=1):
    return F.conv2d(x, w.get("weight"), w.get("bias"), stride=stride, padding=padding)


def linear(w, x):
    return F.linear(x, w.get("weight"), w.get("bias"))


def norm(w, x, groups, eps):
    return F.group_norm(x, groups, w.get("weight"), w.get("bias"), eps)


def attend(q, k, v, heads):
    """(B, C, H, W) each, C in `heads` parts."""
    b, c, h, w = q.shape
    tokens = [t.reshape(b, heads, c // heads, h * w).transpose(2, 3) for t in (q, k, v)]
    return F.scaled_dot_product_attention(*tokens).transpose(2, 3).reshape(b, c, h, w)


def pointwise(weight, bias, x):
    return F.conv2d(x, weight[:, :, None, None], bias)


def attention(w, x, heads, groups, eps):
    h = norm(w.at("group_norm"), x, groups, eps)
    q, k, v = (pointwise(w.at(n).get("weight"), w.at(n).get("bias"), h) for n in ("to_q", "to_k", "to_v"))
    out = w.at("to_out.0")
    return x + pointwise(out.get("weight"), out.get("bias"), attend(q, k, v, heads))


def positional(c, features, cosine_first, shift):
    half = features // 2
    rates = torch.exp(-math.log(10000) / (half - shift) * torch.arange(half, device=c.device))
    args = c[:, None] * rates
    parts = [args.cos(), args.sin()] if cosine_first else [args.sin(), args.cos()]
    return torch.cat(parts, 1)


class Mlp:
    def __init__(self, config):
        self.config = config

    def __call__(self, tensors, x, c):
        w, config = Weights(tensors), self.config
        emb = positional(16 * c, config["time_features"], True, 0)
        emb = F.silu(linear(w.at("time.1"), F.silu(linear(w.at("time.0"), emb))))
        h = linear(w.at("input"), x.flatten(1))
        for i in range(config["blocks"]):
            block = w.at(f"block.{i}")
            inner = linear(block.at("expand"), norm(block.at("norm"), h, 1, 1e-5))
            inner = F.silu(inner + linear(block.at("time"), emb))
            h = h + linear(block.at("project"), inner)
        return linear(w.at("output"), F.silu(norm(w.at("norm"), h, 1, 1e-5))).reshape(x.shape)


class UNet:
    def __init__(self, config):
        self.config = {
            "layers_per_block": 2, "norm_num_groups": 32, "norm_eps": 1e-5, "freq_shift": 0,
            "flip_sin_to_cos": True, "resnet_time_scale_shift": "default", **config,
        }
        self.shift = self.config["resnet_time_scale_shift"] == "scale_shift"

    def block(self, w, x, emb, size=None):
        groups, eps = self.config["norm_num_groups"], self.config["norm_eps"]
        h = F.silu(norm(w.at("norm1"), x, groups, eps))
        if size == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif size == "up":
            h, x = (F.interpolate(t, scale_factor=2.0, mode="nearest") for t in (h, x))
        h = conv(w.at("conv1"), h)
        told = linear(w.at("time_emb_proj"), emb)[:, :, None, None]
        if self.shift:
            scale, shift = told.chunk(2, 1)
            h = norm(w.at("norm2"), h, groups, eps) * (1 + scale) + shift
        else:
            h = norm(w.at("norm2"), h + told, groups, eps)
        h = conv(w.at("conv2"), F.silu(h))
        if w.has("conv_shortcut.weight"):
            x = conv(w.at("conv_shortcut"), x, padding=0)
        return x + h

    def __call__(self, tensors, x, c):
        w, config = Weights(tensors), self.config
        groups, eps = config["norm_num_groups"], config["norm_eps"]
        channels = config["block_out_channels"]
        width = config.get("attention_head_dim")
        attends = lambda s, h: attention(s, h, h.shape[1] // (width or h.shape[1]), groups, eps)
        emb = positional(1000 * c, channels[0], config["flip_sin_to_cos"], config["freq_shift"])
        emb = linear(w.at("time_embedding.linear_2"), F.silu(linear(w.at("time_embedding.linear_1"), emb)))
        emb = F.silu(emb)
        h = conv(w.at("conv_in"), x)
        skips, count = [h], len(channels)
        for i in range(count):
            level = w.at(f"down_blocks.{i}")
            for j in range(config["layers_per_block"]):
                h = self.block(level.at(f"resnets.{j}"), h, emb)
                if level.has(f"attentions.{j}.to_q.weight"):
                    h = attends(level.at(f"attentions.{j}"), h)
                skips.append(h)
            if i + 1 < count:
                h = self.block(level.at("downsamplers.0"), h, emb, "down")
                skips.append(h)
        middle = w.at("mid_block")
        h = self.block(middle.at("resnets.0"), h, emb)
        h = attends(middle.at("attentions.0"), h)
        h = self.block(middle.at("resnets.1"), h, emb)
        for i in range(count):
            level = w.at(f"up_blocks.{i}")
            for j in range(config["layers_per_block"] + 1):
                h = self.block(level.at(f"resnets.{j}"), torch.cat([h, skips.pop()], 1), emb)
                if level.has(f"attentions.{j}.to_q.weight"):
                    h = attends(level.at(f"attentions.{j}"), h)
            if i + 1 < count:
                h = self.block(level.at("upsamplers.0"), h, emb, "up")
        return conv(w.at("conv_out"), F.silu(norm(w.at("conv_norm_out"), h, groups, eps)))


class Ncsnpp:
    def __init__(self, config):
        self.config = {
            "nf": 128, "ch_mult": [2, 2, 2], "num_res_blocks": 4, "attn_resolutions": [16], **config,
        }
        self.filters = {}

    def filter(self, x, gain):
        key = (x.shape[1], gain)
        if key not in self.filters:
            tap = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device)
            kernel = tap[:, None] * tap[None, :] / 64 * gain
            self.filters[key] = kernel.expand(x.shape[1], 1, 4, 4).contiguous()
        return self.filters[key]

    def up(self, x):
        return F.conv_transpose2d(x, self.filter(x, 4), stride=2, padding=1, groups=x.shape[1])

    def down(self, x):
        return F.conv2d(x, self.filter(x, 1), stride=2, padding=1, groups=x.shape[1])

    def block(self, w, x, emb, size=None):
        groups = lambda t: min(t.shape[1] // 4, 32)
        h = F.silu(norm(w.at("GroupNorm_0"), x, groups(x), 1e-6))
        if size:
            h, x = size(h), size(x)
        h = conv(w.at("Conv_0"), h) + linear(w.at("Dense_0"), emb)[:, :, None, None]
        h = conv(w.at("Conv_1"), F.silu(norm(w.at("GroupNorm_1"), h, groups(h), 1e-6)))
        if w.has("Conv_2.weight"):
            x = conv(w.at("Conv_2"), x, padding=0)
        return (x + h) / math.sqrt(2)

    def attention(self, w, x):
        h = norm(w.at("GroupNorm_0"), x, min(x.shape[1] // 4, 32), 1e-6)
        nin = lambda i, t: pointwise(w.get(f"NIN_{i}.W").t(), w.get(f"NIN_{i}.b"), t)
        return (x + nin(3, attend(nin(0, h), nin(1, h), nin(2, h), 1))) / math.sqrt(2)

    def __call__(self, tensors, x, c):
        config, count = self.config, 0
        w = Weights(tensors)

        def module():
            nonlocal count
            count += 1
            return w.at(f"all_modules.{count - 1}")

        def attends(h):
            return self.attention(module(), h) if h.shape[3] in config["attn_resolutions"] else h

        args = 2 * math.pi * c[:, None] * module().get("W")
        emb = torch.cat([args.sin(), args.cos()], 1)
        emb = linear(module(), emb)
        emb = F.silu(linear(module(), F.silu(emb)))
        pyramid, h = x, conv(module(), x)
        kept, levels = [h], len(config["ch_mult"])
        for i in range(levels):
            for _ in range(config["num_res_blocks"]):
                h = attends(self.block(module(), h, emb))
                kept.append(h)
            if i + 1 < levels:
                h = self.block(module(), h, emb, self.down)
                blurred = F.conv2d(pyramid, self.filter(pyramid, 1), padding=2, groups=pyramid.shape[1])
                h = pyramid = (conv(module().at("Conv2d_0"), blurred, 2, 0) + h) / math.sqrt(2)
                kept.append(h)
        h = self.block(module(), h, emb)
        h = self.attention(module(), h)
        h = self.block(module(), h, emb)
        for i in reversed(range(levels)):
            for _ in range(config["num_res_blocks"] + 1):
                h = self.block(module(), torch.cat([h, kept.pop()], 1), emb)
            h = attends(h)
            if i:
                h = self.block(module(), h, emb, self.up)
        h = F.silu(norm(module(), h, min(h.shape[1] // 4, 32), 1e-6))
        return conv(module(), h)


def layer(case):
    kind = case["layer"]
    if kind == "convolution":
        return lambda t, x, c: conv(Weights(t), x)
    if kind == "group-norm":
        return lambda t, x, c: F.silu(norm(Weights(t), x, case["groups"], 1e-5))
    if kind == "attention":
        return lambda t, x, c: attention(Weights(t), x, case["heads"], case["groups"], 1e-5)
    raise SystemExit(f"no layer {kind}")


def build(case):
    if "layer" in case:
        return layer(case)
    network = dict(case["network"])
    kind = network.pop("kind")
    return {"mlp": Mlp, "unet": UNet, "ncsnpp": Ncsnpp}[kind](network)


class Work:
    """The case in one memory layout."""

    def __init__(self, case, tensors, layout, device):
        self.case = case
        self.layout = torch.channels_last if layout == "last" else torch.contiguous_format
        like = lambda t: {"memory_format": self.layout} if t.dim() == 4 else {}
        place = lambda t: t.detach().clone().to(device, **like(t))
        self.x, self.y, self.c = (place(tensors[f"input/{n}"]) for n in ("x", "y", "c"))
        self.params = {k[7:]: place(t) for k, t in tensors.items() if k.startswith("params/")}
        self.model = build(case)
        if device == "cuda" and layout == "compiled":
            self.model = torch.compile(self.model)
        self.training = case["mode"] == "train"
        if self.training:
            trained = [k for k in self.params if not k.endswith("all_modules.0.W")]
            self.trained = [self.params[k].requires_grad_() for k in trained]
            if "layer" in case:
                self.x.requires_grad_()
            else:
                self.average = [p.detach().clone() for p in self.trained]
                self.optimizer = torch.optim.RAdam(self.trained, lr=1e-4, foreach=True)

    def output(self):
        with torch.no_grad():
            return self.model(self.params, self.x, self.c)

    def run(self):
        if not self.training:
            return self.output()
        answer = self.model(self.params, self.x, self.c)
        if "layer" in self.case:
            for t in [self.x, *self.trained]:
                t.grad = None
            answer.backward(self.y)
            return answer
        loss = (answer - self.y).square().sum() / self.x.shape[0]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.trained, 1e-3)
        return loss


def main():
    case, tensors = json.load(open(sys.argv[1])), read(sys.argv[2])
    threads, device = int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    before, works = {}, {}
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def work(layout):
        if layout not in works:
            before[layout] = resident("VmRSS")
            try:
                with open("/proc/self/clear_refs", "w") as refs:
                    refs.write("5")
            except OSError:
                pass
            works[layout] = Work(case, tensors, layout, device)
        return works[layout]

    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        word, layout = line.split()
        if word == "check":
            out = work(layout).output().float().cpu().contiguous()
            path = sys.argv[2] + ".answer"
            with open(path, "wb") as file:
                file.write(out.numpy().tobytes() if hasattr(out, "numpy") else b"")
            print(json.dumps({"answer": path}), flush=True)
        elif word == "run":
            w = work(layout)
            wait()
            start = time.perf_counter()
            w.run()
            wait()
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
        elif word == "memory":
            if device == "cuda":
                print(json.dumps({"bytes": torch.cuda.max_memory_allocated()}), flush=True)
            else:
                print(json.dumps({"bytes": resident("VmHWM") - before[layout]}), flush=True)


main()
