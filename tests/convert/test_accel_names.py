"""Which tensors a conversion is about, by all the names that people have for them."""

import pytest

from accelserve.convert.accel_names import Port, Told, input_ports, output_ports, split_names, told_by
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto

TOLD = Told("Placeholder:0", "images", "output_alias", ("pool5:0",))


def graph(inputs=("InputImage:0",), outputs=("scores:0",), inner=("pool5:0",), **told) -> ModelProto:
    model = ModelProto()
    for name in inputs:
        model.graph.input.add(name=name)
    for name in (*inner, *outputs):
        model.graph.node.add(output=[name])
    for name in outputs:
        model.graph.output.add(name=name)
    for key, value in told.items():
        model.metadata_props.add(key=f"accelserve.{key}", value=value)
    return model


def test_names_come_as_comma_list_as_repeated_flag_and_as_both():
    assert split_names(["a:0, b:0", "c", "a:0", ""]) == ("a:0", "b:0", "c")


def test_a_model_says_what_its_clients_call_things():
    said = {"input_name": "Placeholder:0", "input_key": "images", "output_key": "output_alias"}
    assert told_by(graph(**said, device_output="pool5:0")) == TOLD
    assert told_by(graph()) == Told()


@pytest.mark.parametrize("wanted", [(), ("Placeholder:0",), ("images",)])
def test_by_default_the_input_has_the_names_that_the_model_says(wanted):
    assert input_ports(graph(), TOLD, wanted) == (Port("InputImage:0", "images", "Placeholder:0"),)


@pytest.mark.parametrize("wanted", ["Placeholder", "InputImage:0", "InputImage"])
def test_names_given_at_the_conversion_are_the_clients(wanted):
    assert input_ports(graph(), TOLD, (wanted,)) == (Port("InputImage:0", "images", wanted),)


def test_a_model_that_says_nothing_keeps_its_own_names():
    assert input_ports(graph(), Told(), ()) == (Port("InputImage:0", "InputImage:0", "InputImage:0"),)
    assert output_ports(graph(), Told(), ()) == (Port("scores:0", "scores:0", "scores:0"),)


def test_several_inputs_are_told_by_their_own_names():
    two = graph(inputs=("a", "b"))
    assert [port.name for port in input_ports(two, Told(), ("b:0", "a"))] == ["a", "b:0"]
    with pytest.raises(ScoringError, match="the model's inputs are a, b"):
        input_ports(two, Told(), ("a",))


def test_an_input_that_is_not_there_is_refused_by_name():
    with pytest.raises(
        ScoringError, match=r"input data: .* InputImage:0, Placeholder:0 \(its clients' name\)"
    ) as error:
        input_ports(graph(), TOLD, ("data",))
    assert error.value.kind is Kind.PRECONDITION


def test_outputs_are_the_graphs_or_any_tensor_in_it():
    assert output_ports(graph(), TOLD, ()) == (Port("scores:0", "output_alias", "scores:0"),)
    assert output_ports(graph(), TOLD, ("output_alias",)) == (Port("scores:0", "output_alias", "scores:0"),)
    assert output_ports(graph(), TOLD, ("pool5",)) == (Port("pool5:0", "output_alias", "pool5"),)
    both = output_ports(graph(), TOLD, ("scores:0", "pool5:0"))
    assert [(port.key, port.name) for port in both] == [("scores:0", "scores:0"), ("pool5:0", "pool5:0")]


def test_an_output_that_is_not_there_is_refused_by_name():
    with pytest.raises(ScoringError, match=r"output softmax: no tensor of this name; the model's outputs are scores:0"):
        output_ports(graph(), TOLD, ("scores:0", "softmax"))
