"""A parameter that a flow does not know is refused, wherever it comes from."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from prefect import Flow, flow, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from flows.ablate import AblateParameters, ablate
from flows.crossval import crossval
from flows.demo import demo
from flows.evaluate import evaluate
from flows.parameters.base import FlowParameters, unknown_names
from flows.preprocess import preprocess
from flows.segment import SegmentParameters, segment
from flows.train import TrainParameters, train
from models.network.configurations import DeepGCNConfig
from models.recipes import TrainConfig
from pointcloud.errors import PointloomError

FLOWS = (preprocess, train, segment, evaluate, crossval, ablate, demo)


def test_the_sentence_names_what_was_meant() -> None:
    known = ["min_confidence", "out"]
    assert unknown_names({"out": 1}, known) == ""
    assert (
        unknown_names(["min_confidense"], known)
        == "unknown parameter 'min_confidense'; did you mean 'min_confidence'?"
    )
    assert (
        unknown_names(["zzz"], known, "in 'a.yaml'")
        == "unknown parameter 'zzz' in 'a.yaml'; expected some of min_confidence, out."
    )


@pytest.mark.parametrize("one", FLOWS, ids=lambda one: one.name)
def test_every_flow_refuses_an_unknown_name_with_one_sentence(one: Flow[..., Any]) -> None:
    with pytest.raises(PointloomError, match=r"^unknown parameter 'ouut'; did you mean 'out'\?$"):
        one.validate_parameters({"parameters": {"ouut": "somewhere"}})


@pytest.mark.parametrize("one", FLOWS, ids=lambda one: one.name)
def test_the_schema_of_a_deployment_allows_no_other_name(one: Flow[..., Any]) -> None:
    schema = parameter_schema(one).model_dump_for_openapi()
    (model,) = [m for name, m in schema["definitions"].items() if name.endswith("Parameters")]
    assert model["additionalProperties"] is False


def test_parameters_do_not_change_after_they_were_checked() -> None:
    parameters = SegmentParameters(scans=["a"], checkpoint="b", out="c")
    with pytest.raises(ValidationError, match="frozen"):
        parameters.out = "elsewhere"


class _Parameters(FlowParameters):
    out: str = "out"
    min_confidence: float = 0.0


@flow(name="with parameters")
def _with_parameters(parameters: _Parameters) -> str:
    return parameters.out


def test_a_flow_run_fails_with_the_sentence() -> None:
    state = _with_parameters({"min_confidense": 0.9}, return_state=True)
    assert state.is_failed()
    assert "unknown parameter 'min_confidense'; did you mean 'min_confidence'?" in (state.message or "")


def test_the_server_refuses_a_run_of_a_deployment() -> None:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(_with_parameters)
        deployment = client.create_deployment(
            flow_id, "any", parameter_openapi_schema=parameter_schema(_with_parameters).model_dump_for_openapi(),
            enforce_parameter_schema=True,
        )  # fmt: skip
        with pytest.raises(PrefectHTTPStatusError, match="min_confidense"):
            client.create_flow_run_from_deployment(
                deployment, parameters={"parameters": {"min_confidense": 0.9}}
            )


def test_a_training_takes_every_knob_of_its_recipe_with_the_meaning_said_there() -> None:
    taken = TrainParameters.model_fields
    for name, hint in get_type_hints(TrainConfig, include_extras=True).items():
        kind, knob = get_args(hint)
        assert taken[name].description == knob.description
        assert taken[name].annotation == kind | None
        assert taken[name].default is None, "the recipe's, unless given"


def test_a_described_field_has_the_default_of_its_dataclass_unless_given() -> None:
    assert TrainParameters.model_fields["k"].default == DeepGCNConfig.k
    assert TrainParameters.model_fields["num_layers"].default == 7
    assert AblateParameters.model_fields["num_layers"].default == DeepGCNConfig.num_layers
    assert "Unless given, 256;" in (TrainParameters.model_fields["fusion_channels"].description or "")
