"""Convert weight files to the layout of this project, or a trained network to the published one."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from util.error import ConfigError, run_cli  # isort: split

import torch
from torch import Tensor

from model.identify import identify
from model.pretrained import from_torchvision
from util.data.file import file_sha256
from util.evaluation.output import check_file
from util.training.weight_file import UNFINISHED, load_file, save_atomically, state_dict_of

EXAMPLES = """examples:
  python tool/convert_weights.py --from torchvision --name resnet50 --to initmodel/resnet50_v1.pth
  python tool/convert_weights.py --from FILE.pth --to initmodel/resnet50_v2.pth
  python tool/convert_weights.py --from exp/x/model/train_epoch_50.pth --to pspnet50.pth --published
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="source", required=True, help="a weight file, or torchvision"
    )
    parser.add_argument("--name", default="resnet50", help="network for --from torchvision")
    parser.add_argument("--to", dest="target", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--published",
        action="store_true",
        help="write {'epoch', 'state_dict', 'optimizer'} with `module.` names",
    )
    args = parser.parse_args()
    if args.target.suffix == ".safetensors":
        raise ConfigError(f"--to {args.target}: this tool writes PyTorch files: end it in .pth")
    for path in (args.target, args.target.with_name(f"{args.target.name}{UNFINISHED}")):
        check_file(path, key="--to")
    if args.source == "torchvision":
        content = {"state_dict": from_torchvision(args.name)}
    else:
        content = load_file(args.source)
    state = state_dict_of(content, source=args.source)
    for name, value in identify(state).items():
        print(f"{name}: {value}")
    save_atomically(args.target, layout(content, state, is_published=args.published))
    size, digest = args.target.stat().st_size, file_sha256(args.target)
    print(f"wrote {args.target}, {size} bytes, SHA-256 {digest}")


def layout(content: dict, state: dict[str, Tensor], *, is_published: bool) -> dict:
    """Return a complete float32 state dict, bare or wrapped like published files."""
    state = {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
    for name in [n for n in state if n.endswith("running_var")]:
        counter = name.replace("running_var", "num_batches_tracked")
        state.setdefault(counter, torch.tensor(0))
    if not is_published:
        return state
    return {
        "epoch": content.get("epoch", 0),
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "optimizer": content.get("optimizer", {}),
    }


if __name__ == "__main__":
    run_cli(main)
