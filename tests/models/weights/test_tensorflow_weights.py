"""The TensorFlow original's variables and its order, against a network written out here from the same arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.weights.checkpoint import read_checkpoint
from models.weights.import_weights import import_weights
from models.weights.tensorflow_weights import from_tensorflow_variables
from pointcloud.errors import PointloomError, SchemaError

DEPTH, CHANNELS, K = 4, 6, 5
CASES = [
    (connect, kind) for connect in ("residual", "dense", "none") for kind in ("edge", "mr", "sage", "gin")
]
Variables = dict[str, np.ndarray]


def made_variables(connect: str = "residual", kind: str = "edge") -> Variables:
    """Variables of a small network, random, under the original's names, and what its optimizer leaves beside."""
    draw = np.random.default_rng(3)
    variables: Variables = {"Variable": np.int32(7), "beta1_power": np.float32(0.9)}

    def layer(scope: str, taken: int, given: int, norm: bool = True) -> None:
        values = {
            "weights": draw.normal(size=(1, 1, taken, given)) / taken**0.5,
            "biases": draw.normal(size=given),
        }
        if norm:
            # Some variances so small that 1e-5 for 1e-3 would be another network.
            values |= {
                "bn/gamma": draw.normal(size=given) + 0.5,
                "bn/beta": draw.normal(size=given) * 0.3,
                "bn/pop_mean": draw.normal(size=given) * 0.3,
                "bn/pop_var": draw.choice([1e-3, 0.5, 2.0], size=given),
            }
        for name, value in values.items():
            variables[f"{scope}/{name}"] = value.astype(np.float32)
            if not name.startswith("bn/pop"):
                variables[f"{scope}/{name}/Adam"] = variables[f"{scope}/{name}/Adam_1"] = value.astype(
                    np.float32
                )

    width, widths = 9, []
    for i in range(DEPTH):
        if kind == "sage":
            layer(f"adj_conv_{i}_aggr", width, width)
        if kind == "gin":
            variables[f"adj_conv_{i}_epsilon"] = np.array([0.25], np.float32)
        layer(f"adj_conv_{i}", width if kind == "gin" else 2 * width, CHANNELS)
        width = CHANNELS + (width if connect == "dense" and i else 0)
        widths.append(width)
    layer("adj_conv_final", sum(widths), 20)
    layer("seg/conv1", 20 + sum(widths), 16)
    layer("seg/conv2", 16, 12)
    layer("seg/conv3", 12, 13, norm=False)
    return variables


def original(variables: Variables, x: Tensor, connect: str, kind: str) -> Tensor:
    """Logits (P, 13) of one block (P, 9), float64: convolution, batch norm, ReLU; first graph on channels 6 to 8."""

    def layer(scope: str, features: Tensor) -> Tensor:
        v = {
            name.removeprefix(f"{scope}/"): torch.from_numpy(value).double()
            for name, value in variables.items()
            if name.startswith(f"{scope}/")
        }
        z = features @ v["weights"][0, 0] + v["biases"]
        if "bn/gamma" not in v:
            return z
        normed = (z - v["bn/pop_mean"]) / (v["bn/pop_var"] + 1e-3).sqrt() * v["bn/gamma"] + v["bn/beta"]
        return F.relu(normed)

    graphs: list[Tensor] = []
    for i in range(DEPTH):
        h = graphs[-1] if i else x
        space, dilation = (h, 1 if connect == "none" else i) if i else (x[:, 6:], 1)
        nearest = torch.cdist(space, space).topk(K * dilation, largest=False).indices[:, ::dilation]
        centre, around = h[:, None].expand(-1, K, -1), h[nearest]
        if kind == "edge":
            body = layer(f"adj_conv_{i}", torch.cat([centre, around - centre], dim=2)).amax(dim=1)
        elif kind == "mr":
            body = layer(f"adj_conv_{i}", torch.cat([h, (around - centre).amax(dim=1)], dim=1))
        elif kind == "sage":
            pooled = layer(f"adj_conv_{i}_aggr", around).amax(dim=1)
            body = layer(f"adj_conv_{i}", torch.cat([h, pooled], dim=1))
        else:
            body = layer(f"adj_conv_{i}", h * (1 + 0.25) + around.sum(dim=1))
        if i and connect == "residual":
            body = body + h
        elif i and connect == "dense":
            body = torch.cat([body, h], dim=1)
        graphs.append(body)
    every_layer = torch.cat(graphs, dim=1)
    fused = layer("adj_conv_final", every_layer).amax(dim=0)
    features = torch.cat([fused.expand(len(x), -1), every_layer], dim=1)
    return layer("seg/conv3", layer("seg/conv2", layer("seg/conv1", features)))


def rooms_block() -> tuple[Tensor, Tensor]:
    """(80, 9) in metres, as the original took it, and with xyz in half tiles of 1 m, as blocks give it."""
    metres = torch.rand((80, 9), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return metres, metres * torch.tensor([2.0] * 3 + [1.0] * 6, dtype=torch.float64)


@pytest.mark.parametrize(("connect", "kind"), CASES)
def test_the_originals_logits(tmp_path: Path, connect: str, kind: str) -> None:
    variables = made_variables(connect, kind)
    np.savez(tmp_path / "variables.npz", **variables)
    import_weights(
        tmp_path / "variables.npz",
        str(tmp_path / "out"),
        k=K,
        layer="plain" if connect == "none" else None,
        convolution="mr" if kind == "mr" else None,
    )
    checkpoint = read_checkpoint(str(tmp_path / "out"))
    config = checkpoint.network
    assert (config.norm_first, config.norm_eps, config.coordinate_channels) == (True, 1e-3, (6, 7, 8))
    metres, half_tiles = rooms_block()
    with torch.no_grad():
        found = checkpoint.build_network().double()(half_tiles, torch.tensor([0, 80]))
    expected = original(variables, metres, connect, kind)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def torch_state(variables: Variables, norm: int) -> dict[str, Tensor]:
    """The same network under deep_gcns_torch's keys, norm in place `norm` of each layer."""
    scopes = {"adj_conv_final": "fusion_block", "seg/conv1": "prediction.0", "seg/conv2": "prediction.1"}
    scopes |= {f"adj_conv_{i}": f"backbone.{i - 1}.body.gconv.nn" for i in range(1, DEPTH)}
    scopes |= {"adj_conv_0": "head.gconv.nn", "seg/conv3": "prediction.3"}
    names = {
        "weights": "0.weight",
        "biases": "0.bias",
        "bn/gamma": f"{norm}.weight",
        "bn/beta": f"{norm}.bias",
    }
    names |= {"bn/pop_mean": f"{norm}.running_mean", "bn/pop_var": f"{norm}.running_var"}
    state = {}
    for scope, key in scopes.items():
        for name, of_layer in names.items():
            if f"{scope}/{name}" in variables:
                value = torch.from_numpy(variables[f"{scope}/{name}"])
                state[f"{key}.{of_layer}"] = value.permute(3, 2, 0, 1) if value.ndim == 4 else value
        if scope != "seg/conv3":
            state[f"{key}.{norm}.num_batches_tracked"] = torch.tensor(3)
    return state


@pytest.mark.parametrize(("norm", "options"), [(1, []), (2, ["--norm-first"])])
def test_the_torch_command_knows_the_order_or_is_told(tmp_path: Path, norm: int, options: list[str]) -> None:
    variables = made_variables()
    torch.save(torch_state(variables, norm), tmp_path / "published.pth")
    command = [
        sys.executable,
        "-m",
        "models.weights.import_weights",
        str(tmp_path / "published.pth"),
        *options,
    ]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--k", str(K)], capture_output=True, text=True, check=True
    )
    assert "batch norm before ReLU" in done.stdout
    metres, half_tiles = rooms_block()
    with torch.no_grad():
        found = (
            read_checkpoint(str(tmp_path / "out")).build_network().double()(half_tiles, torch.tensor([0, 80]))
        )
    torch.testing.assert_close(found, original(variables, metres, "residual", "edge"), rtol=1e-8, atol=1e-8)


def test_untold_the_torch_order_is_relu_first(tmp_path: Path) -> None:
    torch.save(torch_state(made_variables(), 2), tmp_path / "published.pth")
    imported = import_weights(
        tmp_path / "published.pth", str(tmp_path / "out"), k=K, layer=None, convolution=None
    )
    config = imported.network
    assert (config.norm_first, config.norm_eps, config.coordinate_channels) == (False, 1e-5, (0, 1, 2))


def test_what_is_not_the_originals_is_named(tmp_path: Path) -> None:
    mixed = torch_state(made_variables(), 1) | {"fusion_block.2.running_mean": torch.zeros(20)}
    torch.save(mixed, tmp_path / "mixed.pth")
    with pytest.raises(SchemaError, match="either before every ReLU or after"):
        import_weights(tmp_path / "mixed.pth", "out", k=K, layer=None, convolution=None)
    for unknown in ("conv1/weights", "adj_conv_1/bn/moving_mean", "bias"):
        with pytest.raises(SchemaError, match=f"variable '{unknown}' is not one of the TensorFlow DeepGCN's"):
            from_tensorflow_variables(made_variables() | {unknown: np.zeros(3)})
    partial = made_variables()
    del partial["adj_conv_final/biases"]
    np.savez(tmp_path / "partial.npz", **partial)
    with pytest.raises(SchemaError, match=r"expected the weight 'fusion.nn.linear.bias'"):
        import_weights(tmp_path / "partial.npz", "out", k=K, layer=None, convolution=None)


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("trapped"),))


def test_pickled_objects_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("trap.npz", weights=np.array([Trap()], dtype=object))
    Path("text.npz").write_text("no archive")
    np.save("bare.npy", np.zeros(3))
    Path("bare.npy").rename("bare.npz")
    for name in ("trap.npz", "text.npz", "bare.npz", "absent.npz"):
        with pytest.raises(PointloomError, match=f"{name} cannot be read as arrays"):
            import_weights(Path(name), "out", k=K, layer=None, convolution=None)
    assert not Path("trapped").exists()
