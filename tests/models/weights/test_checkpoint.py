"""Checkpoints: all that segmenting needs, whole at every moment, and nothing that can run code."""

from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.network.configurations import DeepGCNConfig
from models.network.deepgcn import DeepGCN
from models.weights.checkpoint import RECORD, Checkpoint, fingerprint, read_checkpoint, save_checkpoint
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.errors import PointloomError, SchemaError, StorageError
from pointcloud.quality.drift import Range, Seen
from pointcloud.storage import files
from tests.support.clouds import SCHEME, SMALL, assert_one_sentence

NETWORK = DeepGCNConfig(
    in_channels=4, num_classes=3, num_layers=2, channels=4, k=2, fusion_channels=8, prediction_channels=(8, 8)
)


def make(seed: int = 0, **changes: Any) -> Checkpoint:
    torch.manual_seed(seed)
    known: dict[str, Any] = {
        "network": NETWORK,
        "state": DeepGCN(NETWORK).state_dict(),
        "block_config": SMALL,
        "label_scheme": SCHEME,
        "features": ("xyz", "height"),
        "statistics": FeatureStatistics({"height": 1.0}, {"height": 2.0}),
        "metrics": {"val_miou": 0.5},
        "history": [{"epoch": 1, "train_loss": 1.25, "val_miou": None}],
        "provenance": {"key": "abc"},
        "seen": Seen(Range(1.0, 2.0, 3.0), {"height": Range(0.0, 0.5, 20.0)}),
    }
    return Checkpoint(**(known | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(str(tmp_path / "checkpoint"), make())
    return tmp_path / "checkpoint"


def edit(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / RECORD).read_text()) | changes
    (folder / RECORD).write_text(json.dumps({k: v for k, v in record.items() if v is not ...}))


def weights_of(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_it_comes_back_equal(folder: Path) -> None:
    saved, found = make(), read_checkpoint(str(folder))
    assert found.state.keys() == saved.state.keys()
    for name, tensor in saved.state.items():
        assert torch.equal(found.state[name], tensor)
        assert found.state[name].dtype == tensor.dtype
    assert replace(found, state={}) == replace(saved, state={})
    network = found.build_network()
    assert not network.training
    x, ptr = torch.rand(20, 4), torch.tensor([0, 20])
    torch.testing.assert_close(network(x, ptr), make().build_network()(x, ptr), rtol=0, atol=0)


def test_the_record_alone_needs_no_weights(folder: Path) -> None:
    weights_of(folder).unlink()
    assert read_checkpoint(str(folder), weights=False).metrics == {"val_miou": 0.5}


def test_one_from_before_what_training_saw_was_kept_is_read(folder: Path) -> None:
    edit(folder, seen=...)
    assert read_checkpoint(str(folder)).seen is None
    edit(folder, seen={"density": 1})
    with pytest.raises(SchemaError, match="what training saw"):
        read_checkpoint(str(folder))


def test_equal_checkpoints_are_equal_bytes_and_the_fingerprint_hears_the_weights(tmp_path: Path) -> None:
    one, other, changed = (str(tmp_path / name) for name in "abc")
    save_checkpoint(one, make())
    save_checkpoint(other, make())
    save_checkpoint(changed, make(seed=1))
    assert fingerprint(one) == fingerprint(other) != fingerprint(changed)


# --- overwriting


def test_overwriting_leaves_one_weights_file(folder: Path) -> None:
    for seed in (1, 2, 2):
        save_checkpoint(str(folder), make(seed))
        assert sorted(p.name for p in folder.iterdir()) == [RECORD, weights_of(folder).name]
        found = read_checkpoint(str(folder)).state
        assert all(torch.equal(tensor, found[name]) for name, tensor in make(seed).state.items())


@pytest.mark.parametrize("stop_before", ["weights", "record", "old weights", "nothing"])
def test_overwriting_is_loadable_at_every_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stop_before: str
) -> None:
    """The folder looked at after each step, and the process ended before one of them."""
    old, new = make(0).state, make(1).state
    todo = ["weights", "record", "old weights"]

    def watched(name: str) -> Any:
        real = getattr(files, name)

        def step(*arguments: Any) -> None:
            if todo.pop(0) == stop_before:
                raise KeyboardInterrupt
            real(*arguments)
            assert_old_or_new()

        return step

    def assert_old_or_new() -> None:
        found = read_checkpoint(str(folder)).state
        assert any(all(torch.equal(found[n], s[n]) for n in s) for s in (old, new))

    for name in ("write_bytes", "delete"):
        monkeypatch.setattr(files, name, watched(name))
    with pytest.raises(KeyboardInterrupt) if stop_before != "nothing" else nullcontext():
        save_checkpoint(str(folder), make(1))
    assert_old_or_new()
    assert stop_before != "nothing" or not todo
    monkeypatch.undo()
    save_checkpoint(str(folder), make(1))
    found = read_checkpoint(str(folder)).state
    assert all(torch.equal(found[name], new[name]) for name in new)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"weights": 3}', b'{"weights": "../precious"}']
)
def test_saving_over_a_damaged_record_works_and_touches_nothing_else(folder: Path, content: bytes) -> None:
    precious = folder.parent / "precious"
    precious.write_text("x")
    (folder / RECORD).write_bytes(content)
    save_checkpoint(str(folder), make(1))
    assert precious.exists()
    assert torch.equal(
        read_checkpoint(str(folder)).state["head.nn.linear.bias"], make(1).state["head.nn.linear.bias"]
    )


# --- what is no checkpoint


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no checkpoint at") as error:
        read_checkpoint(str(tmp_path))
    assert_one_sentence(error, str(tmp_path))


@pytest.mark.parametrize("version", [0, 2, "1", None, ...])
def test_another_schema_version_is_refused(folder: Path, version: object) -> None:
    edit(folder, schema_version=version)
    with pytest.raises(SchemaError, match="has schema version") as error:
        read_checkpoint(str(folder), weights=False)
    assert_one_sentence(error, str(folder))


@pytest.mark.parametrize("content", [b"[]", b"3", b'"checkpoint"', b"null"])
def test_json_that_is_no_record_is_refused(folder: Path, content: bytes) -> None:
    (folder / RECORD).write_bytes(content)
    with pytest.raises(SchemaError) as error:
        read_checkpoint(str(folder))
    assert_one_sentence(error, str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": ...}, {"network": ...}, {"network": 3}, {"network": {"in_channels": 4}}, {"features": ...},
        {"features": ["height"]}, {"features": ["xyz", "colour"]}, {"features": 7}, {"statistics": {}},
        {"label_scheme": []}, {"block_config": {"a": 1}}, {"metrics": ...}, {"history": ...},
        {"metrics": None}, {"history": {}}, {"history": [3]}, {"provenance": None}, {"provenance": ["unfinished"]},
        {"weights": 3}, {"weights": "../weights-0000000000000000.safetensors"}, {"weights": RECORD},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_that_lacks_or_spoils_a_field_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    with pytest.raises(PointloomError) as error:
        read_checkpoint(str(folder))
    assert_one_sentence(error, "")


def test_weights_outside_the_folder_are_not_read(folder: Path) -> None:
    elsewhere = folder.parent / weights_of(folder).name
    weights_of(folder).rename(elsewhere)
    for path in (f"../{elsewhere.name}", str(elsewhere)):
        edit(folder, weights=path)
        with pytest.raises(SchemaError, match="not the name of a weights file") as error:
            read_checkpoint(str(folder))
        assert_one_sentence(error, str(folder))


def test_missing_weights_are_said(folder: Path) -> None:
    path = weights_of(folder)
    path.unlink()
    with pytest.raises(StorageError, match=path.name) as error:
        read_checkpoint(str(folder))
    assert_one_sentence(error, str(folder))


def test_another_checkpoint_than_expected_is_refused(folder: Path) -> None:
    identity = fingerprint(str(folder))
    assert read_checkpoint(str(folder), expect=identity).metrics == {"val_miou": 0.5}
    for weights in (True, False):
        with pytest.raises(SchemaError, match="was replaced after this run had begun") as error:
            read_checkpoint(str(folder), weights, expect="another")
        assert_one_sentence(error, str(folder))
    save_checkpoint(str(folder), make(1))
    with pytest.raises(SchemaError, match="was replaced"):
        read_checkpoint(str(folder), expect=identity)
    weights_of(folder).unlink()
    with pytest.raises(SchemaError, match="was replaced"):  # which says more than that weights are missing
        read_checkpoint(str(folder), expect=identity)


def test_weights_that_their_name_does_not_describe_are_refused(folder: Path) -> None:
    other = folder.parent / "other"
    save_checkpoint(str(other), make(1))
    weights_of(folder).write_bytes(weights_of(other).read_bytes())
    with pytest.raises(SchemaError, match=r"is damaged: .* does not hold what its name says") as error:
        read_checkpoint(str(folder))
    assert_one_sentence(error, str(folder))


def test_weights_before_the_end_of_their_training_are_known_as_such() -> None:
    assert make().unfinished == ""
    assert make(provenance={"unfinished": "key"}).unfinished == "its training has not finished"
    assert make(provenance={"stopped": "why"}).unfinished == "its training was stopped before its end"


def test_garbage_weights_are_refused(folder: Path) -> None:
    path = weights_of(folder)
    sound = path.read_bytes()
    for garbage in (b"", b"garbage", sound[:50], sound[:-1], bytes(100), b"\xff" * 100):
        path.write_bytes(garbage)
        with pytest.raises(SchemaError, match="is damaged") as error:
            read_checkpoint(str(folder))
        assert_one_sentence(error, str(folder))


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    edit(folder, network=record["network"] | {"channels": 8})
    with pytest.raises(SchemaError, match="do not fit the network") as error:
        read_checkpoint(str(folder)).build_network()
    assert "\n" not in str(error.value)


def test_nothing_in_it_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = weights_of(folder)
    sound = path.read_bytes()
    for hostile in (pickle.dumps(Trap()), b"PK\x03\x04" + pickle.dumps(Trap())):
        path.write_bytes(hostile)
        with pytest.raises(SchemaError):
            read_checkpoint(str(folder))
    torch.save({"trap": Trap()}, path)
    with pytest.raises(SchemaError):
        read_checkpoint(str(folder))
    assert not (tmp_path / "ran").exists()
    path.write_bytes(sound)

    def refused(*arguments: Any, **named: Any) -> None:
        raise AssertionError("something was unpickled")

    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, refused)
    read_checkpoint(str(folder)).build_network()


# --- what does not fit together


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": ("xyz",)}, "make 3 channels, the network takes 4"),
        ({"network": replace(NETWORK, num_classes=4)}, "has 3 classes, the network 4"),
        ({"network": replace(NETWORK, in_channels=9)}, "make 4 channels, the network takes 9"),
        ({"features": ("xyz", "intensity")}, "statistics lack intensity"),
        ({"statistics": FeatureStatistics({"height": 1.0}, {})}, "statistics lack height"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError, match=words) as error:
        make(**changes)
    assert_one_sentence(error, "")


def test_a_wrong_class_count_in_the_record_is_refused(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    edit(folder, network=record["network"] | {"num_classes": 5})
    with pytest.raises(SchemaError, match="has 3 classes, the network 5") as error:
        read_checkpoint(str(folder))
    assert_one_sentence(error, "")
