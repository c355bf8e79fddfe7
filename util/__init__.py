"""Everything around the networks: configuration, data, running, scoring."""

import os

# Read when torch is loaded. Threads that wait in a loop (the default) stall each other where other
# programs compute: with 2 threads on 2 busy cores a step took over 17 s so, 11 s asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__path__.append(f"{__path__[0]}/data")  # the first edition had util.image and its like here
