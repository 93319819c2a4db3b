"""The store: artifacts published whole or not at all, held by leases, found by key or by equal inputs."""

from qup.store.artifact import Artifact, model_of, save_table
from qup.store.lease import Lease
from qup.store.store import Store

__all__ = ["Artifact", "Lease", "Store", "model_of", "save_table"]
