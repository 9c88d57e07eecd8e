"""What a definition says of itself."""

from dataclasses import replace

import pytest

from accelserve.deploy.definition import Autoscale, ServiceDefinition, parse_autoscale

GOOD = ServiceDefinition("resnet50-service", "resnet50", 3, "/data/store", replicas=2)


@pytest.mark.parametrize(
    ("text", "autoscale"),
    [
        ("1:4", Autoscale(1, 4)),
        ("2:10:50", Autoscale(2, 10, 50)),
        ("2:10:50%", Autoscale(2, 10, 50)),
        ("1:1:70:5", Autoscale(1, 1, 70, 5)),
    ],
)
def test_autoscale_is_typed_as_numbers_with_colons(text, autoscale):
    assert parse_autoscale(text) == autoscale


@pytest.mark.parametrize("text", ["", "3", "a:b", "1:2:3:4:5", "1:", "1.5:2", "1:" + "9" * 5000])
def test_what_is_no_autoscale_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="for example 1:4:70"):
        parse_autoscale(text)


def test_a_definition_says_how_many_gpus_a_replica_has():
    gpus = {device: replace(GOOD, device=device).gpus for device in ("auto", "cpu", "gpu", "gpu:1", "gpu:0,1", "fpga")}
    assert gpus == {"auto": 0, "cpu": 0, "gpu": 1, "gpu:1": 1, "gpu:0,1": 2, "fpga": 0}


def test_devices_that_are_named_are_shared_out_among_the_replicas():
    two = replace(GOOD, device="gpu:0,1")
    assert [two.device_of(replica) for replica in range(3)] == ["gpu:0", "gpu:1", "gpu:0"]
    assert replace(two, replicas=1).device_of(0) == "gpu:0,1"
    assert replace(GOOD, device="fpga:a,b").device_of(1) == "fpga:b"
    assert [replace(GOOD, device=device).device_of(1) for device in ("auto", "cpu", "gpu")] == ["auto", "cpu", "gpu"]
