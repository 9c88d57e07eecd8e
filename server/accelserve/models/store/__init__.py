"""Registered models in a folder: immutable versions with records, which a server serves and nobody half-writes."""

from accelserve.models.store.holds import Hold
from accelserve.models.store.layout import default_store_root, is_model_name, parse_reference, user_data_folder
from accelserve.models.store.records import Registration, StoredModel, problems_of
from accelserve.models.store.registry import Inspect, ModelStore
from accelserve.models.store.store_errors import readable_bytes

__all__ = [
    "Hold",
    "Inspect",
    "ModelStore",
    "Registration",
    "StoredModel",
    "default_store_root",
    "is_model_name",
    "parse_reference",
    "problems_of",
    "readable_bytes",
    "user_data_folder",
]
