"""The rows of the ablation table: one change each to the reference, the same networks trained once."""

from __future__ import annotations

import pytest

from models.network.ablations import ROWS, choose_rows, first_row_of
from models.network.configurations import CONFIGURATIONS, DeepGCNConfig
from pointcloud.errors import PointloomError
from tests.support.clouds import assert_one_sentence

BASE = DeepGCNConfig(in_channels=9, num_classes=13)


def network(name: str, base: DeepGCNConfig = BASE) -> DeepGCNConfig:
    return ROWS[name].change(base)


@pytest.mark.parametrize("base", [BASE, DeepGCNConfig(num_layers=5, channels=8, k=4, layer="residual+")])
def test_every_row_is_a_network_for_any_reference(base: DeepGCNConfig) -> None:
    for name in ROWS:
        found = network(name, base)
        assert len(found.layer_dilations) == found.num_layers
        assert (found.in_channels, found.num_classes) == (base.in_channels, base.num_classes)


def test_with_the_papers_reference_the_rows_are_the_papers_networks() -> None:
    for row, named in (
        ("reference", "ResGCN-28"), ("residual-7", "ResGCN-7"), ("residual-14", "ResGCN-14"),
        ("residual-56", "ResGCN-56"), ("residual-112", "ResGCN-112"), ("plain", "PlainGCN-28"),
        ("dense", "DenseGCN-28"), ("width-128", "ResGCN-28W"), ("mr", "ResMRGCN-28"),
    ):  # fmt: skip
        assert network(row) == CONFIGURATIONS[named]


def test_what_the_rows_change() -> None:
    assert network("not-stochastic").stochastic_epsilon == 0
    assert set(network("not-dilated").layer_dilations) == {1}
    assert not network("fixed-graph").dynamic
    assert network("no-fusion").fusion_channels == 0
    assert network("fixed-graph").layer_dilations[-1] == 27
    assert network("plain-dilated").layer_dilations == BASE.layer_dilations
    assert set(network("plain-14").layer_dilations) == {1}
    assert [network(f"k-{k}").k for k in (4, 8, 16)] == [4, 8, 16]
    assert [network(name).convolution for name in ("reference", "mr", "sage", "gin")] == [
        "edge", "mr", "sage", "gin",
    ]  # fmt: skip


def test_rows_are_chosen_by_name_in_the_order_of_the_table() -> None:
    assert [row.name for row in choose_rows(["plain-7", "reference"])] == ["reference", "plain-7"]
    assert [row.name for row in choose_rows([])] == list(ROWS)
    with pytest.raises(PointloomError, match="no row 'plain-9'; expected some of reference") as error:
        choose_rows(["plain-7", "plain-9"])
    assert_one_sentence(error, "plain-28")


def test_rows_of_one_network_are_one_training_whichever_are_chosen() -> None:
    assert first_row_of(network("residual-28"), BASE) == "reference"
    assert first_row_of(network("plain-28"), BASE) == "plain"
    assert first_row_of(network("plain-7"), BASE) == "plain-7"
    shallow = DeepGCNConfig(num_layers=7)
    assert first_row_of(network("residual-7", shallow), shallow) == "reference"
    assert first_row_of(network("residual-28", shallow), shallow) == "residual-28"
