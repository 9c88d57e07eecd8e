"""The command that a third party types."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from accelserve.backends.conformance.chosen import BACKENDS, GROUP, NoSuchSample, samples_of
from accelserve.backends.synthetic.conformance_sample import ExclusiveSyntheticSample, SyntheticSample

SYNTHETIC = SyntheticSample.__module__
POINTS = [
    EntryPoint("synthetic", f"{SYNTHETIC}:SyntheticSample", GROUP),
    EntryPoint("synthetic.exclusive", f"{SYNTHETIC}:ExclusiveSyntheticSample", GROUP),
    EntryPoint("bare", f"{SYNTHETIC}:DOUBLES", GROUP),
    EntryPoint("half", "no.such.module:Sample", GROUP),
    EntryPoint("unchecked", "no.such.module:probe", BACKENDS),
]


def run_kit(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, far from the checkout."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "accelserve.backends.conformance"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_samples_of_a_back_end_are_it_and_its_variants():
    assert samples_of("synthetic", POINTS) == {
        "synthetic": SyntheticSample,
        "synthetic.exclusive": ExclusiveSyntheticSample,
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (None, "which back end\\? Say --backend NAME; .*with samples: bare, half, synthetic; .*without .*unchecked"),
        ("unchecked", "no sample of a back end 'unchecked'; .*with samples: bare, half, synthetic"),
        ("half", "no.such.module:Sample does not load: ModuleNotFoundError"),
        ("bare", "DOUBLES is no class that inherits from BackendConformance"),
    ],
)
def test_a_back_end_without_a_sample_is_refused_naming_what_there_is(name, words):
    with pytest.raises(NoSuchSample, match=words):
        samples_of(name, POINTS)


def test_the_command_checks_the_named_back_end_and_tells_what_it_did_not_check(tmp_path):
    done = run_kit("--backend", "synthetic", "-k", "closing or device", "-v", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "synthetic::test_closing_twice_does_nothing PASSED" in done.stdout
    assert "synthetic.exclusive::test_a_lease_of_another_device_is_no_lease PASSED" in done.stdout
    assert "the device is shared: test_a_lease_of_another_device_is_no_lease" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("--backend", "nobody")])
def test_the_command_without_a_back_end_that_it_knows_is_a_usage_error(arguments, tmp_path):
    done = run_kit(*arguments, folder=tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "with samples: " in done.stderr


def test_the_command_works_where_pytest_loads_no_plug_in_by_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plug_in = ("-p", "accelserve.backends.pytest_plugin")
    done = run_kit(*plug_in, "--backend", "synthetic", "-k", "speaks_this_version", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_that_finds_no_device_does_not_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run_kit("--backend", "onnx_runtime", "-k", "onnx_runtime.gpu", folder=tmp_path)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    assert "NOT TESTED: there is no gpu: " in done.stdout
