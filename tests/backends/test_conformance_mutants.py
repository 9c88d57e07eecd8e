"""The kit's own test: each check fails for the back end that is broken in the way that it is meant to see."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from mutants import MUTANTS, SOUND

from accelserve.backends.conformance import PictureConformance

HERE = Path(__file__).parent
FILE = HERE / "mutants.py"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[tuple[str, str], str]:
    """(class, check) -> "failure", "skipped" or "passed", of one run over all mutants."""
    report = tmp_path_factory.mktemp("mutants") / "report.xml"
    wanted = [f"{FILE}::Test_{mutant.name}::{mutant.check}" for mutant in MUTANTS]
    wanted += [f"{FILE}::{name}" for name in SOUND]
    options = ["-p", "no:cacheprovider", "-q", "--tb=short", f"--junitxml={report}"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *wanted], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        outcome = next((tag for tag in ("failure", "error", "skipped") if tag in tags), "passed")
        found.setdefault((case.attrib["classname"].rpartition(".")[2], case.attrib["name"]), outcome)  # call, teardown
    return found


def test_every_check_of_the_kit_has_a_mutant():
    checks = {name for name in dir(PictureConformance) if name.startswith("test_")}
    assert {mutant.check for mutant in MUTANTS} == checks


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_back_end_that_is_broken_is_caught_by_the_check_that_is_meant_for_it(mutant, outcomes):
    assert outcomes[f"Test_{mutant.name}", mutant.check] == "failure"


@pytest.mark.parametrize("name", SOUND)
def test_what_the_mutants_are_made_from_passes(name, outcomes):
    found = {check: outcome for (of, check), outcome in outcomes.items() if of == name}
    assert {check for check, outcome in found.items() if outcome not in ("passed", "skipped")} == set()
    assert sum(outcome == "passed" for outcome in found.values()) > 30
