"""The pool's limits out of a server's configuration."""

from accelserve.config import ServerConfig
from accelserve.entry_script.pool_policy import PoolPolicy, pool_policy


def test_limits_are_the_configurations_in_nanoseconds():
    config = ServerConfig(max_queue_ms=250, max_concurrent=7, script_start_timeout_s=1.5)
    made = pool_policy(config, workers=3, timeout_ms=1001)
    assert made == PoolPolicy(3, 1_001_000_000, 250_000_000, 7, start_limit_ns=1_500_000_000)


def test_without_a_limit_a_request_waits_for_as_long_as_it_takes():
    assert pool_policy(ServerConfig(), 1, 60_000).max_wait_ns is None
