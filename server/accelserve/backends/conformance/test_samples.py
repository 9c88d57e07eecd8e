"""Where `pytest --pyargs accelserve.backends.conformance` begins; alone it holds no test."""


class TestSamples:
    """Stands for the samples of the back end that `--backend` names, put here by `pytest_plugin`."""
