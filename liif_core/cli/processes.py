"""Training runs in one process; what starts several, such as torchrun, is refused."""

import os

from liif_core.errors import UserError


def require_one_process() -> None:
    """Raises UserError in one of several processes that torchrun, or a cluster, started for one job."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if rank and size and size.strip() != "1":
        raise UserError(
            f"RANK={rank} and WORLD_SIZE={size} are set, as torchrun sets them: training on several processes is not "
            "offered; start liif-run without torchrun, or, if nothing uses these variables, unset them"
        )
