"""Every probe of azure_probes, asked to our azmlinfsrv and, where it is installed, to the original."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from azml_original import ORIGINAL_PYTHON, original_outcomes

from azure_page import DEFAULT, PAGE, STRICT, original_answers, our_answers, page
from azure_probes import PROBES


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    kinds = (DEFAULT, STRICT)
    with ThreadPoolExecutor(len(kinds)) as pool:
        answers = pool.map(lambda each: our_answers(tmp_path_factory.mktemp("probes"), each), kinds)
        return dict(zip(kinds, answers, strict=True))


def test_each_answer_is_the_originals_or_differs_for_a_reason_that_the_page_tells(ours):
    assert PAGE.read_text() == page(ours), "run python -m tests.azure_page"


def test_no_body_is_lost_silently(ours):
    for key, told in ours[DEFAULT].items():
        assert "it is empty" not in told.body or key == "json: POST nothing", key


def test_every_answer_has_its_ids_and_no_error_tells_the_scripts_secrets(ours):
    for key, told in ours[DEFAULT].items():
        assert "x-ms-server-version" in told.headers, key
        if "x-request-id of 101" not in key:
            assert "x-request-id" in told.headers, key
        assert "secret" not in told.body, key


def test_every_probe_has_been_recorded():
    assert list(original_answers()) == [probe.key for probe in PROBES]


@pytest.mark.compat
@pytest.mark.skipif(
    not ORIGINAL_PYTHON.exists(),
    reason="THE ORIGINAL WAS NOT ASKED: .venv-azml is absent; `make test` or scripts/compat-env makes it",
)
def test_the_original_answers_as_recorded(tmp_path):
    assert original_outcomes(ORIGINAL_PYTHON, tmp_path) == original_answers()
