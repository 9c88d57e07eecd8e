"""The scripts of docs/entry_scripts.md run as they stand there, and what the page says of them holds."""

import json
import re
from pathlib import Path

from script_worker import JSON, get, post, worker

PAGE = (Path(__file__).parents[2] / "docs" / "entry_scripts.md").read_text()
TEXT, RAW, SCHEMA, ASYNC = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_script_of_text(tmp_path):
    with worker(tmp_path, TEXT) as made:
        assert made.ask(post('{"data": [1, 2]}')).body == b"[2,4]"


def test_the_raw_script(tmp_path):
    with worker(tmp_path, RAW) as made:
        answer = made.ask(post(b"\xff\xd8"))
        assert (answer.body, answer.content_type) == (b"\xff\xd8", "image/jpeg")
        assert made.ask(get()).status == 405


def test_the_script_with_a_schema(tmp_path):
    with worker(tmp_path, SCHEMA) as made:
        assert made.ask(post('{"data": [[1, 2], [3, 4]]}', *JSON)).body == b"[30.0,70.0]"


def test_the_async_script(tmp_path):
    with worker(tmp_path, ASYNC) as made:
        assert made.ready.concurrent
        assert made.ask(post("x")).body == b'"x"'


def test_all_that_a_request_has_is_there(tmp_path):
    listed = PAGE[PAGE.index("The request of `@rawhttp`") : PAGE.index("Flask is not needed")]
    names = [name for name in re.findall(r"`(\w+)(?:\(.*?\))?`", listed) if name != "rawhttp"]
    assert len(names) > 20
    script = (
        RAW[: RAW.index("@rawhttp")]
        + f"@rawhttp\ndef run(request):\n    return [n for n in {names} if not hasattr(request, n)]\n"
    )
    with worker(tmp_path, script) as made:
        assert json.loads(made.ask(post("{}")).body) == []
