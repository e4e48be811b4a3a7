"""What diffusers makes of a key that is left out of a configuration, and of one that is null.

Writes table.json beside it, and ../../fixtures/diffusers/tiny_defaults.*: a U-Net whose
configuration leaves out what has a default, with the numbers of the fixtures' formula as weights.
Needs torch and diffusers: `python tests/pretrained/defaults/make.py`.

In the table, `default` is the signature's value, and `null` is `refused` where diffusers cannot
build or run the class with a null there, or else `{"as": [values]}`: the values that were tried and
gave the same numbers.
"""

import inspect
import json
import pathlib
import sys

import diffusers
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    UNet2DModel,
)
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE.parent.parent / "fixtures" / "diffusers"
sys.path.insert(0, str(HERE.parent.parent / "support"))
from formula import formula, uniform  # noqa: E402

# All keys but the one that is tried. Attention with several heads, and each way of changing the
# size: by a level without attention (a convolution), and by one that takes the type's.
UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": True,
    "time_embedding_type": "positional",
    "time_embedding_dim": 20,
    "freq_shift": 1,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "mid_block_scale_factor": 2,
    "downsample_padding": 1,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "attn_norm_num_groups": 4,
    "norm_eps": 1e-3,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": 5,
    "num_train_timesteps": None,
}
# What a null may be the same as. `channels` stands for one head in each attention.
TRIED = {
    "center_input_sample": [False, True],
    "time_embedding_dim": [64],
    "flip_sin_to_cos": [False, True],
    "downsample_padding": [0, 1],
    "downsample_type": ["conv", "resnet"],
    "upsample_type": ["conv", "resnet"],
    "attention_head_dim": [8, 1, "channels"],
    "norm_num_groups": [32, 8, 4],
    "attn_norm_num_groups": [8, 32],
    "add_attention": [False, True],
    "resnet_time_scale_shift": ["default", "scale_shift"],
    # No classes at all: as left out.
    "num_class_embeds": [],
    # No middle: as no other value.
    "mid_block_type": ["UNetMidBlock2D"],
    "clip_denoised": [False, True],
    "rescale_betas_zero_snr": [False, True],
}
DISCRETE = {
    "num_train_timesteps": 20,
    "beta_start": 0.001,
    "beta_end": 0.03,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
CM = {
    "num_train_timesteps": 9,
    "sigma_min": 0.01,
    "sigma_max": 50.0,
    "sigma_data": 0.4,
    "s_noise": 0.9,
    "rho": 6.0,
    "clip_denoised": True,
}


def with_formula(model):
    state = {name: formula(name, tuple(t.shape)) for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


def unet(config):
    """The parameters' shapes and an answer."""
    model = with_formula(UNet2DModel(**config))
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    labels = torch.tensor([3]) if model.class_embedding is not None else None
    sample = uniform("input:defaults", (1, 3, 8, 8)).float()
    return shapes, model(sample, torch.tensor([500.0]), labels).sample


def discrete(of):
    def run(config):
        scheduler = of(**config)
        scheduler.set_timesteps(4)
        # A step: what the prediction type means is seen there.
        step = scheduler.timesteps[1]
        sample = uniform("input:defaults", (1, 3, 8, 8)).float()
        generator = torch.Generator().manual_seed(0)
        moved = scheduler.step(0.1 * sample, step, sample, generator=generator).prev_sample
        return {}, torch.cat([scheduler.alphas_cumprod, moved.flatten()])

    return run


def consistency(config):
    scheduler = CMStochasticIterativeScheduler(**config)
    scheduler.set_timesteps(3)
    x = 3 * uniform("input:defaults", (1, 3, 8, 8)).float()
    generator = torch.Generator().manual_seed(0)
    for step in scheduler.timesteps:
        scheduler.scale_model_input(x, step)
        x = scheduler.step(x, step, x, generator=generator).prev_sample
    return {}, torch.cat([scheduler.sigmas.double(), x.double().flatten()])


def attempt(run, config):
    try:
        shapes, answer = run(config)
    except Exception as error:  # noqa: BLE001: whatever it is, it does not run
        return str(error) or type(error).__name__
    return (shapes, answer) if torch.isfinite(answer).all() else "not finite"


def same(a, b):
    if isinstance(a, str) or isinstance(b, str):
        return False
    return a[0] == b[0] and a[1].shape == b[1].shape and torch.equal(a[1], b[1])


def of_null(run, base, key):
    null = attempt(run, {**base, key: None})
    if isinstance(null, str):
        return "refused"
    equal = []
    for value in TRIED.get(key, [base[key]]):
        if value == "channels":
            # One head in each: the two widths are two networks, so it is built by hand.
            model = UNet2DModel(**{**base, key: None})
            heads = {m.heads for m in model.modules() if hasattr(m, "to_q")}
            found = heads == {1}
        else:
            found = same(null, attempt(run, {**base, key: value}))
        if found:
            equal.append(value)
    return {"as": equal}


def table():
    classes = {
        UNet2DModel: (unet, UNET),
        DDPMScheduler: (discrete(DDPMScheduler), DISCRETE),
        DDIMScheduler: (discrete(DDIMScheduler), DISCRETE),
        CMStochasticIterativeScheduler: (consistency, CM),
    }
    written = {"diffusers": diffusers.__version__}
    for of, (run, base) in classes.items():
        signature = inspect.signature(of.__init__).parameters
        keys = {name: p.default for name, p in signature.items() if name != "self"}
        assert base.keys() <= keys.keys(), base.keys() - keys.keys()
        assert not isinstance(attempt(run, base), str), attempt(run, base)
        rows = {}
        for key, default in keys.items():
            row = {"default": default}
            # Schedulers have keys of their own sampling, which nothing here depends on.
            if key in base:
                row["null"] = of_null(run, base, key)
            rows[key] = row
        written[of.__name__] = rows
    return written


def row(key, value):
    return f'  {json.dumps(key)}: {json.dumps(value)}'


def fixture():
    config = {
        "_class_name": "UNet2DModel",
        "sample_size": [8, 16],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [16, 32],
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }
    path = FIXTURES / "tiny_defaults.config.json"
    path.write_text(json.dumps(config, indent=1) + "\n")
    # From the file, as others read it.
    model = with_formula(UNet2DModel.from_config(UNet2DModel.load_config(str(path))))
    steps = torch.tensor([1.0, 400.0, 999.0])
    tensors = {"sample": (3**0.5 * uniform("input:tiny_defaults", (1, 3, 8, 16))).float(), "timesteps": steps}
    for i, step in enumerate(steps):
        tensors[f"output.{i}"] = model(tensors["sample"], step[None]).sample
    state = model.state_dict()
    count = {"parameters": sum(t.numel() for t in state.values()), "tensors": len(state)}
    metadata = {name: str(value) for name, value in count.items()}
    save_file(tensors, str(FIXTURES / "tiny_defaults.safetensors"), metadata)


with torch.no_grad():
    diffusers.utils.logging.set_verbosity_error()
    lines = []
    for name, rows in table().items():
        if isinstance(rows, dict):
            inside = ",\n".join(row(key, value) for key, value in rows.items())
            lines.append(f" {json.dumps(name)}: {{\n{inside}\n }}")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(rows)}")
    (HERE / "table.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    fixture()
