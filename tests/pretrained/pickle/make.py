"""Makes tiny.bin and short.bin beside it. The first is a U-Net's state dict as PyTorch pickles
it, under the attention names of diffusers before 0.15, with the numbers of the fixtures' formula;
the second is damaged. Needs torch and diffusers: `python tests/pretrained/pickle/make.py`."""

import json
import pathlib
import sys
import zipfile

import torch
from diffusers import UNet2DModel

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "support"))
from formula import formula  # noqa: E402

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old(name):
    for today, before in OLD.items():
        name = name.replace(f".{today}.", f".{before}.")
    return name


model = UNet2DModel(
    sample_size=4,
    in_channels=1,
    out_channels=1,
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    block_out_channels=(4,),
    layers_per_block=1,
    norm_num_groups=2,
    attention_head_dim=None,
)
state = {name: formula(name, tuple(t.shape)) for name, t in model.state_dict().items()}
model.load_state_dict(state)
config = {k: v for k, v in model.config.items() if not k.startswith("_")}
config = {"_class_name": "UNet2DModel", **config}
(HERE / "tiny.config.json").write_text(json.dumps(config, indent=1) + "\n")

# Vectors lie in one storage, at their offsets: a file may do that, and it is smaller so.
vectors = torch.cat([tensor for tensor in state.values() if tensor.dim() == 1])
at, stored = 0, {}
for name, tensor in state.items():
    if tensor.dim() == 1:
        tensor = vectors[at : at + len(tensor)]
        at += len(tensor)
    stored[old(name)] = tensor
torch.save(stored, HERE / "tiny.bin")

sample = formula("input:tiny.sample", (2, 1, 4, 4)) * 4
with torch.no_grad():
    answer = model(sample, torch.tensor([500.0, 500.0])).sample
numbers = {"sample": sample.flatten().tolist(), "output": answer.flatten().tolist()}
(HERE / "tiny.output.json").write_text(json.dumps(numbers) + "\n")

# A call with too few arguments, which PyTorch never writes.
program = (
    b"\x80\x02}(X\x0e\x00\x00\x00conv_in.weightctorch._utils\n_rebuild_tensor_v2\n"
    b"K\x01\x85Ru."
)
with zipfile.ZipFile(HERE / "short.bin", "w") as file:
    file.writestr(zipfile.ZipInfo("tiny/data.pkl"), program)
