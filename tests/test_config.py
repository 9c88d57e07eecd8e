"""The configuration as a value: its defaults, its words, and what in it contradicts itself."""

import pytest

from accelserve.config import ALL_VERSIONS, ServerConfig, VersionPolicy, drain_for_runs, security_problems


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (VersionPolicy(), "latest:1"),
        (VersionPolicy(latest=3), "latest:3"),
        (ALL_VERSIONS, "all"),
        (VersionPolicy(specific=(1, 3)), "1, 3"),
    ],
)
def test_a_choice_of_versions_is_told_in_the_words_that_it_is_made_with(policy, text):
    assert str(policy) == text


@pytest.mark.parametrize(("scoring_s", "drain_s"), [(20, 30.0), (60, 62), (90.5, 93)])
def test_draining_lasts_as_long_as_a_run_that_has_just_begun(scoring_s, drain_s):
    assert drain_for_runs(scoring_s) == drain_s


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (ServerConfig(tls_cert="c.pem"), "--tls-cert without --tls-key: TLS wants both"),
        (ServerConfig(tls_key="k.pem"), "--tls-key without --tls-cert: TLS wants both"),
        (ServerConfig(tls_client_ca="a.pem"), "client certificates are a part of TLS"),
        (ServerConfig(auth_everywhere=True), "there is no key to ask for"),
    ],
)
def test_options_of_keys_and_tls_want_each_other(config, problem):
    (found,) = security_problems(config)
    assert problem in found


def test_a_whole_set_of_keys_and_tls_has_no_problem():
    assert security_problems(ServerConfig()) == []
    whole = ServerConfig(tls_cert="c", tls_key="k", tls_client_ca="a", auth_keys="f", auth_everywhere=True)
    assert security_problems(whole) == []
