"""Training on several devices and hosts, with the mechanism of each backend."""

from mobilenet_zoo.training.devices.cluster import Agreed, Cluster
from mobilenet_zoo.training.devices.joining import open_cluster
from mobilenet_zoo.training.devices.launching import launch, needs_launch

__all__ = ["Agreed", "Cluster", "launch", "needs_launch", "open_cluster"]
