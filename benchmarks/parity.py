"""Logits of the public reference against those of Pointloom, on the graph that the reference used.

    python -m benchmarks.parity FILE.safetensors…

A parity file holds `state.<reference key>`, `input` (B, C, N, 1), `logits` (B, classes, N) and
`nn_idx` (L, B, N, k); the .json beside it is the network's configuration. Prints the largest
difference of every file and one JSON line; exits with 1 when a difference is above 5e-3 or a file
cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from models.network.deepgcn import DeepGCN
from models.weights.import_weights import from_reference_state
from pointcloud.errors import PointloomError

LARGEST_DIFFERENCE = 5e-3
LAYERS = {"res": "residual", "dense": "dense", "plain": "plain"}


def largest_difference(file: Path) -> float:
    """Of the logits of one parity file, graph forced, float32.

    Raises:
        PointloomError: no such file, or not a parity file.
    """
    try:
        tensors = load_file(file)
        published = json.loads(file.with_suffix(".json").read_text())["config"]
        state = {
            key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")
        }
        x, logits, graph = tensors["input"], tensors["logits"], tensors["nn_idx"].long()
    except (OSError, ValueError, KeyError) as error:
        raise PointloomError(f"{file} is not a parity file with its .json beside it: {error}.") from error
    config, weights = from_reference_state(
        state, k=published["k"], layer=LAYERS[published["block"]], convolution=published["conv"]
    )
    network = DeepGCN(config).eval()
    network.load_state_dict(weights)
    num_blocks, _, num_points, _ = x.shape
    starts = torch.arange(num_blocks + 1) * num_points
    with torch.no_grad():
        found = network(
            x[..., 0].transpose(1, 2).flatten(0, 1),
            starts,
            graph=(graph + starts[:-1, None, None]).flatten(1, 2),
        )
    return (found - logits.transpose(1, 2).flatten(0, 1)).abs().max().item()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare with the reference's logits, the graph forced.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="parity files (.safetensors)")
    files = [file.with_suffix(".safetensors") for file in parser.parse_args().files]
    differences = []
    for file in dict.fromkeys(files):
        try:
            differences.append(largest_difference(file))
        except PointloomError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{file.stem}: {differences[-1]:.2e}")
    print(json.dumps({"max_abs_diff": max(differences), "files": len(differences)}))
    # Not `>`: a NaN must fail too.
    return 0 if max(differences) <= LARGEST_DIFFERENCE else 1


if __name__ == "__main__":
    sys.exit(main())
