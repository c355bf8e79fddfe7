"""Everything but the networks: configuration, data, training, inference, evaluation."""

import os

# Must be set before torch is imported. Threads that spin while waiting (the default) slow each
# other down on a busy machine: with 2 threads on 2 busy cores a step took over 17 s instead of 11.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__path__.append(f"{__path__[0]}/data")  # keeps old imports such as util.image working
