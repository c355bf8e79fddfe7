"""Where a process runs: its rank, its device, its peers, and what happens when one is lost.

Rank and device live here, nowhere else.
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
