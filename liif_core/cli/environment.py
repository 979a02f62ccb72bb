"""What the commands set in the environment before torch is imported, which reads it then."""

import os
from collections.abc import MutableMapping

# A few microseconds. The default, about a hundred times as many, keeps a core busy that others could use.
_SPINS = "10000"


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what suits a command. What the user has set is kept."""
    wait_briefly(environment)
    if environment.get("WORLD_SIZE", "1") != "1":
        # torch remarks, on every process, that every step looks for parameters that it does not use; see Optimization
        environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads sleep soon, which costs little alone and helps much where other processes use the cores.

    GNU OpenMP, which torch uses on Linux, reads this. What the user has set is kept.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = _SPINS
