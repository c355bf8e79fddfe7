"""Processes and devices: ranks, collectives, starting processes, and handling lost ones.

No other package depends on the rank or names a device.
"""

from util.distributed.device import describe, single_device
from util.distributed.launch import launch
from util.distributed.process import Process, unwrap
from util.distributed.signals import StopRequest

__all__ = [
    "Process",
    "StopRequest",
    "describe",
    "launch",
    "single_device",
    "unwrap",
]
