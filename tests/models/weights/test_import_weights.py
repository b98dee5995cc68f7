from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.parity import largest_difference
from models.network.deepgcn import DeepGCN
from models.predictor import Predictor
from models.weights.checkpoint import read_checkpoint
from models.weights.import_weights import COORDINATES, from_reference_state, import_weights
from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.cloud import Cloud
from pointcloud.errors import PointloomError, SchemaError
from pointcloud.simulate.rooms import RoomsConfig, simulate_room
from tests.support.voxel_votes import label_cloud

PARITY = Path(__file__).parents[4] / "shared" / "parity"


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


@pytest.fixture(scope="module")
def room() -> Cloud:
    """A simulated office, its corner away from the origin."""
    _, objects = simulate_room(RoomsConfig(points_per_m2=6.0), area=5, number=0)
    points = np.concatenate([points for _, points in objects])
    colours = {
        name: points[:, 3 + i].astype(np.uint16) * 257 for i, name in enumerate(("red", "green", "blue"))
    }
    return Cloud(points[:, :3] + [20.0, -7.0, 3.0], colours)


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_nine_published_channels_label_a_room(tmp_path: Path, room: Cloud, coordinates: str) -> None:
    """Block-centred xyz in metres, rgb, place in the room: put together here by hand, in the published order."""
    file = tmp_path / "published.pth"
    torch.save({"state_dict": reference_state(in_channels=9)}, file)
    import_weights(file, str(tmp_path / "out"), k=4, layer=None, convolution=None, coordinates=coordinates)
    checkpoint = read_checkpoint(str(tmp_path / "out"))
    assert checkpoint.features == ("xyz", "rgb", "room_xyz")
    assert checkpoint.network.coordinate_channels == COORDINATES[coordinates]
    predictor = Predictor(checkpoint)

    config, weights = from_reference_state(reference_state(in_channels=9), k=4)
    published = DeepGCN(replace(config, coordinate_channels=COORDINATES[coordinates])).eval()
    published.load_state_dict(weights)
    low, high = room.xyz.min(axis=0), room.xyz.max(axis=0)
    colours = np.stack([room.attributes[name] / 65535 for name in ("red", "green", "blue")], axis=1)
    cut = checkpoint.block_config
    blocks = list(iterate_blocks("office", room, thin(room, cut), cut, None))
    assert len(blocks) > 20
    for block, logits in predictor.logits(blocks[::7]):
        xyz = room.xyz[block.point_index]
        x0, y0, x1, y1 = block.cell
        centred = xyz - [(x0 + x1) / 2, (y0 + y1) / 2, xyz[:, 2].min()]
        x = np.hstack([centred, colours[block.point_index], (xyz - low) / (high - low)])
        with torch.no_grad():
            expected = published(torch.from_numpy(x).float(), torch.tensor([0, len(block)]))
        # Half tiles and metres round differently, and a neighbour that swaps with another changes its points.
        agree = np.isclose(logits, expected.numpy(), atol=1e-3).all(axis=1)
        assert agree.mean() > 0.9

    classes, confidence = label_cloud(predictor, "office", room)
    assert classes.shape == confidence.shape == (len(room),)
    assert set(np.unique(classes)) <= set(range(13))
    assert (confidence >= 1 / 13).all()


def test_the_room_as_coordinates_needs_nine_channels(tmp_path: Path) -> None:
    torch.save(reference_state(), tmp_path / "six.pth")
    with pytest.raises(PointloomError, match="coordinate_channels must name some of the 6 input channels"):
        import_weights(tmp_path / "six.pth", "out", k=4, layer=None, convolution=None, coordinates="room")


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
    with pytest.raises(SchemaError, match="not a published DeepGCN"):
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
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert json.loads(done.stdout.splitlines()[-1])["files"] == 1
