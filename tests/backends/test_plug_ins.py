import logging
import subprocess
import sys
import threading
from importlib.metadata import EntryPoint

import pytest

from accelserve.backends.base import Offer
from accelserve.backends.plug_ins import GROUP, discover, unknown_names
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

CPU = frozenset({DeviceKind.CPU})
NEVER = threading.Event()


class Package:
    """The part of a Distribution that matters here."""

    def __init__(self, name: str, version: str = "1.0") -> None:
        self.name = name
        self.version = version


def entry(name: str, function: str, package: str | None = "accelserve") -> EntryPoint:
    point = EntryPoint(name, function if ":" in function else f"{__name__}:{function}", GROUP)
    vars(point)["dist"] = None if package is None else Package(package)
    return point


def offered(name: str, **changes: object) -> Offer:
    return Offer(**{"name": name, "formats": frozenset({"onnx"}), "device_kinds": CPU, "backend": "m:C", **changes})


def plain() -> Offer:
    return offered("plain")


def preferred() -> Offer:
    return offered("preferred", preference=5)


def npu() -> Offer:
    return offered("npu")


def raises() -> Offer:
    raise OSError("the tool chain is half installed")


def ends() -> Offer:
    sys.exit("goodbye")


def interrupts() -> Offer:
    raise KeyboardInterrupt


def hangs() -> Offer:
    NEVER.wait()
    return plain()


def says_a_word() -> str:
    return "plain:Backend"


def has_another_name() -> Offer:
    return offered("onnx_runtime")


def names_kinds_as_text() -> Offer:
    return offered("odd", device_kinds=frozenset({"cpu"}))


def cannot_be_hashed() -> Offer:
    return offered("odd", formats={"onnx"})


def has_no_class() -> Offer:
    return offered("odd", backend="module")


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL)


def test_our_own_offers_come_the_preferred_first():
    found = discover(found=[entry("plain", "plain"), entry("preferred", "preferred")])
    assert [(offer.name, offer.unavailable) for offer in found] == [("preferred", ""), ("plain", "")]


@pytest.mark.parametrize("package", ["acme-npu", "accelserve-npu", None])
def test_a_plug_in_of_another_package_does_not_run_unless_it_is_named(package):
    points = [entry("plain", "plain"), entry("npu", "no.such.module:probe", package)]
    shown = discover(found=points)
    assert [offer.name for offer in shown] == ["npu", "plain"]
    assert "not allowed: say --backends npu" in shown[0].unavailable
    assert "installed (by " in shown[0].unavailable
    assert "ModuleNotFoundError" in discover({"npu"}, points)[0].unavailable


def test_a_plug_in_that_is_named_runs():
    (found,) = discover({"npu"}, [entry("npu", "npu", "acme-npu")])
    assert found == npu()


def test_naming_one_of_our_own_changes_nothing():
    assert discover({"plain"}, [entry("plain", "plain")]) == [plain()]


def test_a_name_that_is_not_installed_is_refused_naming_those_that_are():
    points = [entry("plain", "plain"), entry("npu", "npu", "acme-npu")]
    wanted = "there is no back end 'fpag'; installed are npu (of acme-npu 1.0); always allowed: plain"
    assert unknown_names(["fpag", "npu"], points) == wanted
    with pytest.raises(ScoringError, match="there is no back end 'fpag'") as refusal:
        discover({"fpag"}, points)
    assert refusal.value.kind is Kind.INVALID
    assert "no plug-in is installed beside accelserve's own" in unknown_names(["npu"], points[:1])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("raises", "OSError: the tool chain is half installed"),
        ("no_such_probe", "AttributeError"),
        ("no.such.module:probe", "ModuleNotFoundError"),
        ("ends", "SystemExit: goodbye"),
        ("interrupts", "KeyboardInterrupt"),
        ("says_a_word", "returned str, not an Offer"),
        ("has_another_name", "its offer is named 'onnx_runtime', its entry point 'odd'"),
        ("names_kinds_as_text", "device_kinds: want a frozenset of DeviceKind"),
        ("cannot_be_hashed", "formats: want a frozenset of str"),
        ("has_no_class", "want \"module:Class\", got 'module'"),
    ],
)
def test_a_probe_that_fails_becomes_an_unavailable_offer_and_the_others_go_on(function, words):
    found = discover(found=[entry("odd", function), entry("plain", "plain")])
    assert [offer.name for offer in found] == ["odd", "plain"]
    assert words in found[0].unavailable
    assert found[1].unavailable == ""


def test_a_probe_that_hangs_is_left_alone_and_the_others_go_on():
    points = [entry(f"hangs-{number}", "hangs") for number in range(3)]
    found = discover(found=[*points, entry("plain", "plain")], limit_s=1.0)  # for all of them together
    assert found[-1] == plain()
    assert [offer.unavailable.partition(" did not")[2] for offer in found[:-1]] == [" answer within 1 s"] * 3


def test_a_process_with_a_hanging_probe_ends():
    program = f"""
import sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
import test_plug_ins as probes
print(probes.discover(found=[probes.entry("odd", "hangs")], limit_s=0.01)[0].unavailable)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "did not answer within 0.01 s" in done.stdout


def test_two_packages_with_one_name_are_both_refused_naming_them():
    points = [entry("npu", "npu", "acme-npu"), entry("npu", "npu", "other-npu")]
    for allow in ((), {"npu"}):
        (found,) = discover(allow, points)
        assert found.unavailable == (
            "several packages bring a back end npu: acme-npu 1.0 and other-npu 1.0; uninstall one"
        )


def test_a_package_that_takes_one_of_our_names_does_not_run_under_it():
    points = [entry("plain", "plain"), entry("plain", "raises", "acme-npu")]
    for allow in ((), {"plain"}):
        ours, theirs = discover(allow, points)
        assert ours == plain()
        assert theirs.name == "plain (of acme-npu 1.0)"
        assert "not allowed: plain is the name of a back end of accelserve" in theirs.unavailable
