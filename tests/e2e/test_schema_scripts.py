"""Scripts with `@input_schema` and `@output_schema`, by the public package inference-schema itself."""

import json

import pytest
from script_worker import JSON, get, post, worker

BEGINNING = """
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

def init():
    pass
"""
NUMPY = (
    BEGINNING
    + """
@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("factor", StandardPythonParameterType(2))
@output_schema(NumpyParameterType(np.array([[1.0, 2.0]])))
def run(data, factor=10):
    assert isinstance(data, np.ndarray), type(data)
    return data * factor
"""
)
NESTED = (
    BEGINNING
    + """
@input_schema("inputs", StandardPythonParameterType({
    "rows": NumpyParameterType(np.array([1, 2])), "name": StandardPythonParameterType("x")}))
def run(inputs, request_headers):
    return {"sum": inputs["rows"].sum(), "name": inputs["name"], "kind": request_headers["Content-Type"]}
"""
)
PANDAS = (
    BEGINNING
    + """
import pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType

@input_schema("frame", PandasParameterType(pd.DataFrame([{"a": 1, "b": 0.5}])))
@output_schema(PandasParameterType(pd.DataFrame([{"c": 1.5}])))
def run(frame):
    return pd.DataFrame({"c": frame["a"] + frame["b"]})
"""
)
ASYNC = NUMPY.replace("def run(", "async def run(")


def body(response):
    return json.loads(response.body)


@pytest.fixture(scope="module", params=[NUMPY, ASYNC], ids=["plain", "async"])
def numpy_script(tmp_path_factory, request):
    with worker(tmp_path_factory.mktemp("numpy"), request.param) as made:
        assert (made.ready.shape, made.ready.concurrent) == ("schema", request.param is ASYNC)
        yield made


def test_arrays_come_and_go(numpy_script):
    assert body(numpy_script.ask(post('{"data": [[1, 2], [3, 4]], "factor": 2}', *JSON))) == [[2, 4], [6, 8]]


def test_defaults_hold(numpy_script):
    assert body(numpy_script.ask(post('{"data": [[1, 2]]}', *JSON))) == [[10, 20]]


def test_a_query_is_read_too(numpy_script):
    assert body(numpy_script.ask(get(b"data=[[1,2]]&factor=3"))) == [[3, 6]]


@pytest.mark.parametrize(
    ("request_body", "status"),
    [("", 400), ("{bad", 400), ("[1]", 400), ('{"factor": 1}', 400), ('{"data": 5}', 500), ('{"data": [[1]]}', 500)],
)
def test_what_does_not_fit_is_refused_or_fails_in_run(numpy_script, request_body, status):
    answer = numpy_script.ask(post(request_body, *JSON))
    assert (answer.status, answer.failed) == (status, status == 500)


def test_the_schemas_are_in_the_swagger_documents(numpy_script):
    document = json.loads(numpy_script.ready.swagger["3"])
    schemas = document["components"]["schemas"]
    assert schemas["ServiceInput"]["properties"]["data"]["type"] == "array"
    assert schemas["ServiceInput"]["example"]["factor"] == 2
    assert schemas["ServiceOutput"]["items"]["items"]["type"] == "number"
    assert json.loads(numpy_script.ready.swagger["2"])["definitions"]["ServiceInput"] == schemas["ServiceInput"]


def test_nested_types_are_converted(tmp_path):
    with worker(tmp_path, NESTED) as made:
        answer = made.ask(post('{"inputs": {"rows": [1, 2], "name": "n"}}', *JSON))
        assert body(answer) == {"sum": 3, "name": "n", "kind": "application/json"}


def test_data_frames_come_and_go(tmp_path):
    with worker(tmp_path, PANDAS) as made:
        answer = made.ask(post('{"frame": [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.25}]}', *JSON))
        assert body(answer) == [{"c": 1.5}, {"c": 2.25}]
        assert "records" in made.ready.swagger["3"]


def test_raw_and_schema_do_not_go_together(tmp_path):
    script = "from azureml.contrib.services.aml_request import rawhttp\n" + NUMPY.replace(
        "@output", "@rawhttp\n@output"
    )
    with worker(tmp_path, script) as made:
        assert made.failed.message == "run() cannot be decorated with both @rawhttp and @input_schema"


def test_a_schema_without_the_package_says_what_to_install(tmp_path):
    blocked = "import sys\nsys.modules['inference_schema'] = None\n"
    with worker(tmp_path, blocked + NUMPY) as made:
        assert "install inference-schema where accelserve is installed" in made.failed.message
