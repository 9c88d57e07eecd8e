"""What a back end says of itself and of this host, before any model is there."""

import pytest

from accelserve.backends.base import API_VERSION, Backend, Capabilities, Device, DeviceState, Featured, ModelArtifact
from accelserve.backends.conformance.fixtures import Checks


class InventoryChecks(Checks):
    def test_it_speaks_this_version_of_the_interface(self, backend: Backend) -> None:
        assert backend.api_version == API_VERSION
        assert backend.name

    def test_its_inventory_explains_each_kind_that_it_lacks(self, backend: Backend) -> None:
        inventory = backend.inventory()
        there = {device.kind for device in inventory.devices}
        for kind in {self.device_kind, *self.may_lack} - there:
            assert any(inventory.missing.get(kind, ())), f"nothing explains why there is no {kind.value}"

    def test_its_devices_have_ids_of_their_own_that_begin_with_their_kind(self, backend: Backend) -> None:
        devices = backend.inventory().devices
        assert len({device.id for device in devices}) == len(devices), "device ids repeat"
        for device in devices:
            assert device.id.startswith(f"{device.kind.value}:"), f"{device.id}: --device cannot name it"

    def test_its_features_are_told_with_what_they_lack(self, backend: Backend) -> None:
        if not isinstance(backend, Featured):
            pytest.skip("it tells of no features")
        for name, lacks in backend.features().items():
            assert name
            assert all(lacks), f"{name}: a missing piece without a name"

    def test_its_capabilities_name_the_samples_format(self, limits: Capabilities, artifact: ModelArtifact) -> None:
        assert artifact.format in limits.formats

    def test_its_limits_can_be_kept(self, limits: Capabilities) -> None:
        for limit in (limits.max_batch, limits.max_inflight, limits.models_per_device):
            assert limit is None or limit >= 1
        assert limits.numerics, "nothing says in which numbers it computes"

    def test_a_device_of_the_inventory_is_healthy(self, backend: Backend, device: Device) -> None:
        assert backend.health(device).state in (DeviceState.READY, DeviceState.FREE)
