"""Workers of entry scripts as processes: every shape of script, in both ways, as section 2 of the original has them."""

import json
import os
import time

import pytest
from script_worker import JSON, get, post, worker

from accelserve.entry_script.framing import FrameKind
from accelserve.entry_script.messages import ScriptRequest

INIT = "def init():\n    pass\n\n"
RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse
"""
JPEG_SHAPE = (
    RAW
    + """
def init():
    global suffix
    suffix = b"!"

@rawhttp
def run(request):
    if request.method == "POST":
        return AMLResponse(request.get_data(False) + suffix, 200)
    if request.method == "GET":
        return AMLResponse(str.encode("GET is not supported"), 405)
    return AMLResponse("bad request", 500)
"""
)
JSON_SHAPE = """
import json

def init():
    global factor
    factor = 2

def run(raw_data):
    return [factor * number for number in json.loads(raw_data)["data"]]
"""
FORM = ("content-type", "application/x-www-form-urlencoded")


def body(response):
    return json.loads(response.body)


def test_a_script_of_text_answers_with_json(tmp_path):
    with worker(tmp_path, JSON_SHAPE) as script:
        assert (script.ready.shape, script.ready.concurrent) == ("text", False)
        answer = script.ask(post('{"data": [1, 2]}', *JSON))
        assert (answer.status, answer.body, answer.content_type, answer.failed) == (
            200,
            b"[2,4]",
            "application/json",
            False,
        )
        assert answer.run_ns > 0


def test_the_type_of_a_form_costs_the_body_only_where_it_is_strict(tmp_path):
    script = INIT + "def run(raw_data):\n    return raw_data\n"
    with worker(tmp_path, script) as ours:
        assert body(ours.ask(post('{"data": [1]}', FORM))) == '{"data": [1]}'
    with worker(tmp_path, script, strict_compat=True) as strict:
        assert strict.ask(post('{"data": [1]}', FORM)).body == b'""'


def test_a_query_is_a_body_too(tmp_path):
    with worker(tmp_path, INIT + "import json\ndef run(raw_data):\n    return json.loads(raw_data)\n") as script:
        assert body(script.ask(get(b"a=1&b=[1,2]&c=x&c=y"))) == {"a": 1, "b": [1, 2], "c": ["x", "y"]}


def test_a_raw_script_answers_as_it_likes(tmp_path):
    with worker(tmp_path, JPEG_SHAPE) as script:
        assert script.ready.shape == "rawhttp"
        answer = script.ask(post(b"\xff\xd8", ("content-type", "image/jpeg")))
        assert (answer.status, answer.body) == (200, b"\xff\xd8!")
        assert answer.content_type == "text/html; charset=utf-8"
        refused = script.ask(get())
        assert (refused.status, refused.body, refused.failed) == (405, b"GET is not supported", False)
        assert script.ask(get(method="HEAD")).status == 405
        failed = script.ask(get(method="OPTIONS"))
        assert (failed.status, failed.body, failed.failed) == (500, b"bad request", True)


def test_the_original_gives_a_raw_script_head_as_it_is(tmp_path):
    with worker(tmp_path, JPEG_SHAPE, strict_compat=True) as script:
        assert script.ask(get(method="HEAD")).status == 500


def test_the_originals_own_names_work_too(tmp_path):
    script = JPEG_SHAPE.replace("azureml.contrib.services", "azureml_inference_server_http.api")
    with worker(tmp_path, script) as made:
        assert made.ask(post(b"x")).body == b"x!"


def test_an_empty_and_a_large_body_arrive(tmp_path):
    with worker(tmp_path, JPEG_SHAPE) as script:
        assert script.ask(post()).body == b"!"
        large = bytes(range(256)) * 40_000
        assert script.ask(post(large)).body == large + b"!"


def test_request_headers_come_where_run_asks_for_them(tmp_path):
    script = INIT + "def run(data, request_headers):\n    return [data, request_headers]\n"
    with worker(tmp_path, script) as made:
        assert body(made.ask(post("x", ("x-ms-a", "1")))) == ["x", {"X-Ms-A": "1"}]


@pytest.mark.parametrize(
    ("returned", "ours", "strict"),
    [
        ("None", b"{}", b"{}"),
        ("'text'", b'"text"', b'"text"'),
        ("'{\"a\": 1}'", b'"{\\"a\\": 1}"', b'"{\\"a\\": 1}"'),
        ("({'a': 1}, 404)", b'[{"a":1},404]', b'[{"a": 1}, 404]'),
        ("float('nan')", b"null", b"NaN"),
        ("numpy.float32([0.1, numpy.inf])", b"[0.1,null]", None),
        ("numpy.float64(2)", b"2.0", b"2.0"),
        ("numpy.int64(2)", b"2", None),
        ("b'text'", b'"text"', None),
        ("b'\\xff\\xd8'", b'{"b64":"/9g="}', None),
        ("{1, 2}", None, None),
        ("object()", None, None),
        ("(x for x in [1])", None, None),
        ("AMLResponse({'k': 1}, 200)", b'{"k":1}', b"k"),
        ("AMLResponse((str(x) for x in [1, 2]), 200)", b"12", b"12"),
        ("AMLResponse(None, 200)", b"{}", b"{}"),
        ("AMLResponse([1.5, None], 200, {}, True)", b"[1.5,null]", b"[1.5, null]"),
    ],
)
def test_what_run_returns_is_sent_or_is_an_error(tmp_path, returned, ours, strict):
    script = f"import numpy\n{RAW}\n{INIT}def run(data):\n    return {returned}\n"
    with worker(tmp_path, script) as made:
        answer = made.ask(post("x"))
        if ours is None:
            assert (answer.status, answer.failed) == (500, True)
            assert body(answer)["message"].startswith("The scoring script's answer cannot be sent: run() returned ")
            assert "is not JSON serializable" in answer.report
        else:
            assert (answer.status, answer.body) == (200, ours)
    with worker(tmp_path, script, strict_compat=True) as made:
        answer = made.ask(post("x"))
        if strict is None:
            assert (answer.status, answer.failed, answer.run_ns) == (500, False, None)
            assert body(answer) == {"message": "An unexpected internal error occurred. Check the logs for more info."}
        else:
            assert (answer.status, answer.body) == (200, strict)


def test_nan_is_what_the_operator_chose(tmp_path):
    script = INIT + "def run(data):\n    return [float('nan'), 1.0]\n"
    with worker(tmp_path, script, nan="NaN") as made:
        assert made.ask(post("x")).body == b"[NaN,1.0]"
    with worker(tmp_path, script, nan="refuse") as made:
        assert made.ask(post("x")).status == 500


def test_headers_with_commas_stay_whole_but_not_where_it_is_strict(tmp_path):
    script = (
        RAW + INIT + "@rawhttp\ndef run(r):\n    return AMLResponse('', 201, {'X-A': '1, 2', 'Content-Type': 'a/b'})\n"
    )
    with worker(tmp_path, script) as made:
        answer = made.ask(post())
        assert (answer.status, answer.content_type, answer.headers) == (201, "a/b", (("x-a", "1, 2"),))
    with worker(tmp_path, script, strict_compat=True) as made:
        assert made.ask(post()).headers == (("x-a", "1"), ("x-a", "2"))


FLASK_LIKE = """
class Response:
    status_code, mimetype, direct_passthrough = 418, "image/png", False
    headers = {"Content-Type": "image/png", "X-A": "b"}
    def get_data(self):
        return b"\\x89PNG"

def run(data):
    return Response()
"""


def test_a_response_of_flask_is_passed_on(tmp_path):
    with worker(tmp_path, INIT + FLASK_LIKE) as script:
        answer = script.ask(post("x"))
    assert (answer.status, answer.body, answer.content_type) == (418, b"\x89PNG", "image/png")
    assert answer.headers == (("x-a", "b"),)


ASYNC = """
import asyncio

async def init():
    global meeting
    meeting = asyncio.Barrier(3)

async def run(raw_data):
    if raw_data == "exit":
        raise SystemExit(1)
    if raw_data == "hang":
        await asyncio.sleep(60)
    await meeting.wait()
    return raw_data * 50_000
"""


def test_an_async_run_has_several_requests_under_way(tmp_path):
    with worker(tmp_path, ASYNC) as script:
        assert script.ready.concurrent
        asked = {script.send(post(text)): text for text in ("a", "b", "c")}
        answers = dict(script.receive() for _ in range(3))
        assert {asked[number]: answer.body.decode() for number, answer in answers.items()} == {
            text: f'"{text * 50_000}"' for text in "abc"
        }


def test_an_async_run_that_fails_or_takes_too_long_leaves_the_others_alone(tmp_path):
    with worker(tmp_path, ASYNC, timeout_ms=300) as script:
        names = {script.send(post(text)): text for text in ("hang", "exit", "a", "b", "c")}
        answers = {}
        for _ in range(5):
            number, answer = script.receive()
            answers[names[number]] = answer.status
            assert ("SystemExit: 1" in answer.report) == (names[number] == "exit")
        assert answers == {"hang": 504, "exit": 500, "a": 200, "b": 200, "c": 200}


def test_an_async_raw_script_gets_the_request(tmp_path):
    script = RAW + INIT + "@rawhttp\nasync def run(request):\n    return AMLResponse(request.get_data(), 200)\n"
    with worker(tmp_path, script) as made:
        assert (made.ready.shape, made.ready.concurrent) == ("rawhttp", True)
        assert made.ask(post(b"\xff")).body == b"\xff"


HIDDEN_ASYNC = "async def later(data):\n    return data\n\ndef run(data):\n    return later(data)\n"


def test_a_coroutine_that_run_returns_is_awaited(tmp_path):
    with worker(tmp_path, INIT + HIDDEN_ASYNC) as made:
        assert not made.ready.concurrent
        assert made.ask(post("x")).body == b'"x"'


@pytest.mark.parametrize(("strict", "status"), [(False, 504), (True, 500)])
def test_a_run_that_takes_too_long_is_ended_and_the_worker_lives_on(tmp_path, strict, status):
    script = INIT + (
        "import time\ndef run(data):\n    try:\n        while data == 'hang': time.sleep(0.01)\n"
        "    except Exception:\n        return 'swallowed'\n    return data\n"
    )
    with worker(tmp_path, script, timeout_ms=200, strict_compat=strict) as made:
        for _ in range(2):
            began = time.monotonic()
            answer = made.ask(post("hang"))
            assert time.monotonic() - began < 5
            assert (answer.status, body(answer)) == (status, {"message": "Scoring timeout after 200 ms"})
            assert answer.failed
            assert made.ask(post("x")).body == b'"x"'


def test_a_run_that_swallows_its_end_is_ended_again(tmp_path):
    script = INIT + (
        "import time\ndef run(data):\n    try:\n        time.sleep(60)\n"
        "    except BaseException:\n        time.sleep(60)\n"
    )
    with worker(tmp_path, script, timeout_ms=100) as made:
        assert made.ask(post("x")).status == 504


def test_a_generator_that_never_ends_is_ended(tmp_path):
    script = (
        RAW
        + INIT
        + (
            "import time\ndef endless():\n    while True:\n        time.sleep(0.01)\n        yield 'x'\n"
            "@rawhttp\ndef run(request):\n    return AMLResponse(endless(), 200)\n"
        )
    )
    with worker(tmp_path, script, timeout_ms=200) as made:
        assert made.ask(post()).status == 504


DRIVER = """
import types
driver_module = types.ModuleType("driver")
exec("def run(data):\\n    return 'driven ' + data\\n", driver_module.__dict__)

def init():
    pass

def run(*args):
    return "not me"
"""


def test_a_driver_module_has_the_run_that_counts(tmp_path):
    with worker(tmp_path, DRIVER) as made:
        assert made.ask(post("x")).body == b'"driven x"'


def test_a_script_finds_its_models_and_its_neighbours(tmp_path):
    (tmp_path / "mine.onnx").write_text("x")
    (tmp_path / "neighbour.py").write_text("word = 'here'\n")
    script = (
        "import os, sys, neighbour\nfrom azureml.core.model import Model\nfrom azureml.core import Model as Same\n"
        "import azureml.core.model\nassert Same is Model is azureml.core.model.Model\n"
        "def init():\n    global found\n"
        "    found = [Model.get_model_path('m'), os.environ['AZUREML_MODEL_DIR'], sys.argv]\n"
        "def run(data):\n    return found + [neighbour.word]\n"
    )
    models = {"m": str(tmp_path / "mine.onnx")}
    with worker(tmp_path, script, models=models, model_dir=str(tmp_path)) as made:
        expected = [models["m"], str(tmp_path), [str(tmp_path / "score.py")], "here"]
        assert body(made.ask(post("x"))) == expected


def test_a_script_in_a_folder_of_its_source_directory_finds_what_lies_above_it(tmp_path):
    (tmp_path / "code" / "deep").mkdir(parents=True)
    (tmp_path / "code" / "words.py").write_text("word = 'above'\n")
    (tmp_path / "code" / "labels.txt").write_text("labels")
    script = tmp_path / "code" / "deep" / "score.py"
    script.write_text(
        "import words\ndef init():\n    global labels\n    labels = open('labels.txt').read()\n"
        "def run(data):\n    return [words.word, labels]\n"
    )
    places = {"source_directory": str(tmp_path / "code")}, {"working_directory": str(tmp_path / "code")}
    with worker(tmp_path, script, **places[0]) as made:
        assert "labels.txt" in made.failed.message
    with worker(tmp_path, script, **places[1]) as made:
        assert body(made.ask(post("x"))) == ["above", "labels"]


def test_a_model_that_is_not_there_is_said_to_the_operator(tmp_path):
    script = (
        "from azureml.core.model import Model\ndef init():\n    Model.get_model_path('resnet50')\ndef run(x): pass\n"
    )
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "other.pkl").write_text("x")
    with worker(tmp_path, script, model_dir=str(tmp_path / "dir")) as made:
        assert made.failed.message.startswith("init() failed: ModelNotFoundException: Model resnet50 not found at ")
        assert "other.pkl" in made.failed.traceback
        assert made.process.wait(10) == 3


def test_the_errors_of_azureml_are_there_to_be_caught(tmp_path):
    script = INIT + (
        "from azureml.core.model import Model\n"
        "from azureml.exceptions import ModelNotFoundException, WebserviceException\n"
        "def run(data):\n    try:\n        Model.get_model_path(data)\n    except WebserviceException as error:\n"
        "        return [isinstance(error, ModelNotFoundException), error.message]\n"
    )
    with worker(tmp_path, script) as made:
        assert body(made.ask(post("none")))[0] is True


def test_swagger_documents_come_with_the_beginning(tmp_path):
    (tmp_path / "swagger3.json").write_text('{"mine": 1}')
    with worker(tmp_path, JSON_SHAPE, service="digits", path_prefix="/x/") as made:
        documents = {version: json.loads(text) for version, text in made.ready.swagger.items()}
    assert documents["2"]["info"]["title"] == "digits"
    assert list(documents["2"]["paths"]) == ["/x/", "/x/score", "/x/swagger.json"]
    assert documents["3"] == {"mine": 1}
    assert documents["3.1"]["openapi"] == "3.1.0"


def test_other_methods_are_answered_for_the_script(tmp_path):
    with worker(tmp_path, JSON_SHAPE) as made:
        assert made.ask(ScriptRequest("PUT", "/score", b"", (), b"")).status == 405
        options = made.ask(ScriptRequest("OPTIONS", "/score", b"", (), b""))
        assert (options.status, options.body, options.content_type) == (200, b"", "text/html; charset=utf-8")


def test_what_was_given_ahead_and_recalled_is_passed_over(tmp_path):
    script = INIT + "def run(data):\n    open(data, 'x')\n    return data\n"
    permits = os.eventfd(1, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    with worker(tmp_path, script, permits=permits) as made:
        first = made.send(post(str(tmp_path / "first")))
        begun, *_ = [made.send(post(str(tmp_path / name)), FrameKind.AHEAD) for name in ("begun", "last", "one more")]
        last = made.send(post(str(tmp_path / "plain")))
        assert [made.receive()[0] for _ in range(3)] == [first, begun, last]
    os.close(permits)
    assert not (tmp_path / "last").exists()
    assert not (tmp_path / "one more").exists()
