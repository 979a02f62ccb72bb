"""How long threads of one operation wait for each other before they sleep."""

import os
from collections.abc import MutableMapping

# A few microseconds. The default, about a hundred times as many, keeps a core busy that others could use.
_SPINS = "10000"


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads sleep soon, which costs little alone and helps much where other processes use the cores.

    GNU OpenMP, which torch uses on Linux, reads this when torch is imported. What the user has set is kept.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = _SPINS
