"""A definition is written down and read back, and what is none is refused."""

import json
from dataclasses import replace

import pytest

from accelserve.deploy.definition import Autoscale, ServiceDefinition
from accelserve.deploy.definition_json import as_json, from_json

GOOD = ServiceDefinition("resnet50-service", "resnet50", 3, "/data/store", replicas=2)
SCRIPTED = replace(GOOD, entry_script="/home/ann/score.py", source_directory="/home/ann")


@pytest.mark.parametrize(
    "definition",
    [
        GOOD,
        replace(SCRIPTED, model_files=(("a", "/a"), ("b", "/b")), cpu_cores=0.5, max_queue_ms=500, backends=("npu",)),
        replace(GOOD, replicas=None, autoscale=Autoscale(1, 4, 50, 2), tls_cert="/c", tls_key="/k", version=None),
    ],
)
def test_a_definition_survives_json(definition):
    assert from_json(json.loads(json.dumps(as_json(definition)))) == definition


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "want an object"),
        ({"name": "abc", "colour": "red"}, "'colour': unknown key"),
        ({"name": 3}, "'name': got 3"),
        ({"name": "abc", "replicas": "2"}, "'replicas': got '2'"),
        ({"name": "abc", "replicas": True}, "'replicas': got True"),
        ({"name": "abc", "serve_model": 1}, "'serve_model': got 1"),
        ({"name": "abc", "autoscale": {"min": "1"}}, "'min': got '1'"),
        ({"name": "abc", "autoscale": [1, 2]}, "want an object"),
        ({"name": "abc", "model_files": {"a": 1}}, "'model_files': want an object"),
        ({"name": "abc", "backends": "npu"}, "'backends': want a list"),
    ],
)
def test_a_document_that_is_no_definition_is_refused_with_the_key(document, told):
    with pytest.raises(ValueError, match=told):
        from_json(document)


def test_a_whole_number_is_taken_where_a_fraction_may_stand():
    assert from_json({"name": "abc", "memory_gb": 4}).memory_gb == 4
