"""How `verify` opens what it compares: as `serve` would, without its self-check."""

from accelserve.backends.base import Offer
from accelserve.backends.discovery import BackendPool
from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.convert.verification import opened
from accelserve.devices import DeviceKind
from accelserve.models.loading import Loader
from model_builders import synthetic_model


class Preferred(SyntheticBackend):
    """Would run the model too, and comes first where the model's file does not say otherwise."""

    def load(self, prepared, device, options, lease):
        raise AssertionError("the model's own file names another back end")


class Remembering(SyntheticBackend):
    """Keeps the options of the last session on the session itself, for the test to read."""

    def load(self, prepared, device, options, lease):
        session = super().load(prepared, device, options, lease)
        session.options = options
        return session


def loader(folder) -> Loader:
    formats, kinds = frozenset({"synthetic"}), frozenset({DeviceKind.CPU})
    offers = [Offer(made.__name__, formats, kinds, f"{__name__}:{made.__name__}") for made in (Preferred, Remembering)]
    return Loader(BackendPool(offers), None, folder / "leases", lambda tensors: None)


def test_a_model_is_opened_with_the_back_end_and_the_batch_sizes_that_its_own_file_names(tmp_path):
    path = synthetic_model(tmp_path / "m.synthetic.toml")
    (tmp_path / "m.accelserve.toml").write_text('runtime = "Remembering"\n[batching]\nallowed_batch_sizes = [1, 8]\n')
    with opened(loader(tmp_path), path, "cpu") as session:
        assert (session.options.max_batch_size, session.options.batch_sizes) == (8, (1, 8))
