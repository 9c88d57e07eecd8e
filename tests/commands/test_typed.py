"""What is typed after flags that several commands have."""

from pathlib import Path

import pytest

from accelserve.commands.stored import Typed


def test_named_files_are_there_and_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a=b").write_text("")
    typed = Typed()
    found = typed.named_files("--model-files", ["words=a=b", "folder=.", "home=~/a=b"])
    assert found == {"words": tmp_path / "a=b", "folder": tmp_path, "home": tmp_path / "a=b"}
    assert typed.problems == []
    assert all(isinstance(path, Path) for path in found.values())


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["words"], "want NAME=PATH"),
        (["=x"], "want NAME=PATH"),
        (["x="], "want NAME=PATH"),
        (["x=none"], "there is no"),
        (["x=zero\0byte"], "there is no"),
        ([f"x={'y' * 5000}"], "there is no"),
        (["x=.", "x=."], "given twice"),
    ],
)
def test_what_is_wrong_with_a_named_file_is_told(tmp_path, monkeypatch, texts, told):
    monkeypatch.chdir(tmp_path)
    typed = Typed()
    typed.named_files("--model-files", texts)
    (problem,) = typed.problems
    assert problem.startswith("--model-files ")
    assert told in problem
