"""The LTE decoder of liif-core, which was in this distribution before.

Experiment files and checkpoints with ``use = "liif-lte:lte"`` still work.
"""

from liif_core import Component, hookimpl
from liif_zoo.lte import LTE, LTEOptions


@hookimpl
def liif_decoders():
    return Component("lte", LTE, LTEOptions)
