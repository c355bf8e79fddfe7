"""Where a process runs: its rank, its device, its peers, and what happens when one is lost.

Rank and device live here, nowhere else.
"""

from util.runtime.devices import describe, main_device, visible_gpus
from util.runtime.launch import launch
from util.runtime.peers import Runtime, unwrap
from util.runtime.seed import choose_seed, seed_everything, seed_step
from util.runtime.stop import StopRequest

__all__ = [
    "Runtime",
    "StopRequest",
    "choose_seed",
    "describe",
    "launch",
    "main_device",
    "seed_everything",
    "seed_step",
    "unwrap",
    "visible_gpus",
]
