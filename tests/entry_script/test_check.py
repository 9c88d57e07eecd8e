"""The check of a script before anything starts: all its problems, and nothing against what it cannot know."""

import pytest

from accelserve.entry_script.check import script_problems

INIT = "def init():\n    pass\n"
RAW = "from azureml.contrib.services.aml_request import rawhttp\n"
SCHEMA = "from inference_schema.schema_decorators import input_schema, output_schema\n"


def problems(tmp_path, text, name="score.py"):
    script = tmp_path / name
    script.write_text(text) if isinstance(text, str) else script.write_bytes(text)
    return [found.removeprefix(str(script)) for found in script_problems(script)]


@pytest.mark.parametrize(
    "text",
    [
        INIT + "def run(raw_data):\n    return raw_data\n",
        INIT + "async def run(raw_data):\n    return raw_data\n",
        INIT + RAW + "@rawhttp\ndef run(request):\n    return request\n",
        INIT + SCHEMA + "@input_schema('a', 1)\n@output_schema(2)\ndef run(a, b=2):\n    return a\n",
        INIT + "def run(data, request_headers):\n    return data\n",
        INIT + "def run(request_headers, *, data=1):\n    return data\n",
        "from model import *\n",
        "from model import init, run\n",
        "import model\ninit, run = model.init, model.run\n",
        "import driver as run\ninit = lambda: None\n",
        "if True:\n    def init(): pass\nelse:\n    init = 1\n"
        "try:\n    from a import run\nexcept ImportError:\n    run = 1\n",
        INIT + "globals()['run'] = print\n",
        INIT + "import other\n@other.wraps\ndef run(*args, **kwargs): pass\n",  # who knows what it takes
        INIT + "def run(*args): pass\nrun = print\n",
        "class init: pass\nclass run: pass\n",
        "with open('x') as run:\n    pass\nfor init in []: pass\n",
        "def init(level=1): pass\ndef run(raw_data): return '\\d'\n",
    ],
)
def test_nothing_is_said_against_a_script_that_may_run(tmp_path, text):
    assert problems(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [": it has no init() at its top level", ": it has no run() at its top level"]),
        ("class A:\n    def init(self): pass\n    def run(self, x): pass\n", 2),
        ("def main():\n    def run(x): pass\n    init = run\n", 2),
        (INIT, [": it has no run() at its top level"]),
        (INIT + "def run():\n    pass\n", [', line 3: run() needs a parameter for the data, beside "request_headers"']),
        (INIT + "def run(request_headers): pass\n", 1),
        (
            INIT + "def run(*args):\n    pass\n",
            [", line 3: run() cannot accept positional-only arguments, *args, or **kwargs"],
        ),
        (INIT + "def run(data, /): pass\n", 1),
        (INIT + "def run(data, **kwargs): pass\n", 1),
        (
            "def init(level): pass\ndef run(x, *, y, **z): pass\n",
            [
                ", line 1: init() is called without arguments, and this one needs some",
                ", line 2: run() cannot accept positional-only arguments, *args, or **kwargs",
            ],
        ),
        (
            INIT + RAW + SCHEMA + "@rawhttp\n@input_schema('a', 1)\ndef run(a): pass\n",
            [", line 7: run() cannot be decorated with both @rawhttp and @input_schema"],
        ),
        (
            INIT + "from azureml.contrib.services.aml_request import rawhttp as raw\nimport inference_schema as s\n"
            "@raw\n@s.input_schema('a', 1)\ndef run(): pass\n",
            2,
        ),
        ("def init(:\n", [", line 1: invalid syntax"]),
        (INIT + "   x = 1\n", [", line 3: unindent does not match any outer indentation level"]),
        (b"def init():\n  pass # \xff\n", 1),
        (b"\0", 1),
        ("(" * 5000 + ")" * 5000, 1),
    ],
)
def test_all_problems_are_told_with_their_lines(tmp_path, text, expected):
    found = problems(tmp_path, text)
    assert found == expected if isinstance(expected, list) else len(found) == expected


def test_the_name_ends_in_py_and_the_file_is_there(tmp_path):
    assert problems(tmp_path, "", "score.txt")[0] == ": an entry script's name ends in .py"
    assert len(problems(tmp_path, "", "score.txt")) == 3
    assert script_problems(tmp_path / "none.py") == (f"{tmp_path / 'none.py'}: No such file or directory",)
    assert script_problems(tmp_path.with_name("none")) == (
        f"{tmp_path.with_name('none')}: an entry script's name ends in .py",
        f"{tmp_path.with_name('none')}: No such file or directory",
    )


def test_a_folder_is_no_script(tmp_path):
    (tmp_path / "score.py").mkdir()
    assert script_problems(tmp_path / "score.py") == (f"{tmp_path / 'score.py'}: Is a directory",)


def test_the_script_is_not_run(tmp_path):
    assert problems(tmp_path, INIT + "def run(x): pass\nraise SystemExit(5)\n") == []
