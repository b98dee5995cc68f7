from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.parity import largest_difference
from models.checkpoint import read_checkpoint
from models.deepgcn import DeepGCN
from models.import_weights import from_reference_state, import_weights
from pointcloud.errors import PointloomError, SchemaError

PARITY = Path(__file__).parents[3] / "shared" / "parity"


def reference_state(channels: int = 8, depth: int = 3, in_channels: int = 6) -> dict[str, Tensor]:
    """A small residual EdgeConv network under deep_gcns_torch's keys."""
    generator = torch.Generator().manual_seed(0)
    fused = depth * channels
    layers = {
        "head.gconv.nn": (2 * in_channels, channels),
        **{f"backbone.{i}.body.gconv.nn": (2 * channels, channels) for i in range(depth - 1)},
        "fusion_block": (fused, 32),
        "prediction.0": (32 + fused, 24),
        "prediction.1": (24, 16),
    }
    state: dict[str, Tensor] = {}
    for key, (taken, given) in layers.items():
        state[f"{key}.0.weight"] = torch.randn((given, taken, 1, 1), generator=generator) / taken**0.5
        state[f"{key}.0.bias"] = torch.randn(given, generator=generator)
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"{key}.2.{name}"] = torch.rand(given, generator=generator)
        state[f"{key}.2.num_batches_tracked"] = torch.tensor(5)
    state["prediction.3.0.weight"] = torch.randn((13, 16, 1, 1), generator=generator)
    state["prediction.3.0.bias"] = torch.randn(13, generator=generator)
    return state


def test_the_imported_checkpoint_gives_the_published_logits_in_metres(tmp_path: Path) -> None:
    torch.save({"epoch": 99, "state_dict": reference_state()}, tmp_path / "published.pth")
    imported = import_weights(
        tmp_path / "published.pth", str(tmp_path / "out"), k=4, layer=None, convolution=None
    )
    again = read_checkpoint(str(tmp_path / "out"))
    assert again.network == imported.network
    assert (again.network.num_layers, again.network.channels, again.network.k) == (3, 8, 4)
    assert again.features == ("xyz", "rgb")
    config, weights = from_reference_state(reference_state(), k=4)
    published = DeepGCN(config).eval()
    published.load_state_dict(weights)
    metres = torch.rand(50, 6, generator=torch.Generator().manual_seed(1))
    half_tiles = metres.clone()
    half_tiles[:, :3] /= 0.5
    ptr = torch.tensor([0, 50])
    with torch.no_grad():
        torch.testing.assert_close(again.build_network()(half_tiles, ptr), published(metres, ptr))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_keys_of_a_wrapped_network_are_the_same(prefix: str) -> None:
    config, weights = from_reference_state({prefix + key: value for key, value in reference_state().items()})
    assert config.layer == "residual"
    assert set(weights) == set(DeepGCN(config).state_dict())


def test_what_does_not_fit_is_named() -> None:
    state = reference_state()
    state["backbone.0.body.gconv.nn.0.weight"] = torch.zeros(8, 5, 1, 1)
    with pytest.raises(
        SchemaError, match=r"backbone.0.conv.nn.linear.weight: expected \(8, 16\), found \(8, 5\)"
    ):
        from_reference_state(state)
    with pytest.raises(SchemaError, match=r"weight extra: expected none, found \(1,\)"):
        from_reference_state(reference_state() | {"extra": torch.zeros(1)})
    with pytest.raises(SchemaError, match="not a deep_gcns_torch network"):
        from_reference_state({"conv1.weight": torch.zeros(1)})


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("trapped"),))


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap()}, "trap.pth")
    Path("bare.pth").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pth", "bare.pth", "absent.pth"):
        with pytest.raises(PointloomError, match=f"{name} cannot be read as weights"):
            import_weights(Path(name), "out", k=16, layer=None, convolution=None)
    assert not Path("trapped").exists()


@pytest.mark.skipif(not PARITY.is_dir(), reason="no parity files beside the repository (../shared/parity)")
def test_the_references_logits_with_its_graph() -> None:
    files = sorted(PARITY.glob("*.safetensors"))
    assert files
    for file in files:
        assert largest_difference(file) < 5e-3, file.stem


@pytest.mark.skipif(not PARITY.is_dir(), reason="no parity files beside the repository (../shared/parity)")
def test_the_parity_command_ends_in_one_json_line() -> None:
    file = min(PARITY.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    command = [sys.executable, "-m", "benchmarks.parity", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert json.loads(done.stdout.splitlines()[-1])["files"] == 1
