"""A real Kubernetes on one machine, for tests and for trying Penstock out.

`control_plane()` is an API server alone; `python -m e2e.cluster up` makes a whole cluster.
"""

from e2e.cluster.controlplane import ControlPlane, control_plane
from e2e.cluster.errors import ClusterError

__all__ = ["ClusterError", "ControlPlane", "control_plane"]
