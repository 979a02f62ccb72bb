"""The LTE decoder under this distribution's name: it comes with liif-core now, and this passes it on.

So that ``use = "liif-lte:lte"`` goes on meaning it, in experiment files and in checkpoints that were saved with it.
"""

from liif_core import Component, hookimpl
from liif_zoo.lte import LTE, LTEOptions


@hookimpl
def liif_decoders():
    return Component("lte", LTE, LTEOptions)
