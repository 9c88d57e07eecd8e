"""Gives pytest `--backend NAME`, where its command names the conformance kit; nothing happens anywhere else.

An entry point of the group `pytest11` names this module: with `--pyargs`, pytest reads no conftest.py before the
options. Every run of pytest loads it where accelserve is installed, so it imports nothing of ours until it is asked.
"""

from typing import Any

import pytest

KIT = "accelserve.backends.conformance"
_NO_DEVICE = "NOT TESTED: there is no "  # as the kit's `device` begins when it skips
_PLACE = "TestSamples"


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    if any(arg == KIT or arg.startswith((f"{KIT}.", f"{KIT}::")) for arg in args):
        parser.addoption("--backend", metavar="NAME", help="the back end that is checked, by its entry point's name")
        early_config.pluginmanager.register(KitRun(), "accelserve-conformance")


class KitRun:
    """One run of the kit: the samples in the place of `TestSamples`, and what was not tested told at the end."""

    def __init__(self) -> None:
        self._samples: dict[str, type] = {}
        self._on_a_device = self._without_device = False

    def pytest_configure(self, config: pytest.Config) -> None:
        pytest.register_assert_rewrite(KIT)
        from accelserve.backends.conformance.chosen import NoSuchSample, samples_of

        try:
            self._samples = dict(samples_of(config.getoption("--backend")))
        except NoSuchSample as wrong:
            raise pytest.UsageError(str(wrong)) from wrong

    def pytest_pycollect_makeitem(self, collector: pytest.Collector, name: str, obj: object) -> Any:
        if name != _PLACE or not getattr(obj, "__module__", "").startswith(f"{KIT}."):
            return None
        return [_collected(collector, each, sample) for each, sample in self._samples.items()]

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._on_a_device |= "device" in getattr(item, "fixturenames", ())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._without_device |= report.skipped and _NO_DEVICE in str(report.longrepr)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """What was checked on no device at all has not passed."""
        if self._without_device and not self._on_a_device and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Every reason why a check was skipped, whether `-r` was given or not."""
        skipped: dict[str, list[str]] = {}
        for report in terminalreporter.getreports("skipped"):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            skipped.setdefault(reason, []).append(report.nodeid.rpartition("::")[2])
        if skipped:
            terminalreporter.section("not checked")
        for reason, names in sorted(skipped.items()):
            terminalreporter.line(f"{reason}: {', '.join(sorted(set(names)))}")


def _collected(collector: pytest.Collector, name: str, sample: type) -> pytest.Class:
    node: pytest.Class = pytest.Class.from_parent(collector, name=name)
    node.obj = sample
    return node
