"""The type checker of the tests: beartype, for the shapes and types of tensors only.

jaxtyping's import hook applies it to every function of the checked modules. Other annotations are left out: type
checkers of source code check those, and an int for a float is no mistake.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, install_import_hook

CHECKED = ("liif_core.model", "liif_core.nn", "liif_core.importing", "liif_core.testing", "liif_paper", "liif_zoo")
VALIDATED = ("Query.points", ".encode")  # they raise ValueError for wrong shapes themselves, which other tests check


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that checks the arguments and the result whose annotations state shapes."""
    if function.__qualname__.endswith(VALIDATED):
        return function
    shapes = {name: hint for name, hint in function.__annotations__.items() if _states_shape(hint)}
    function.__annotations__ = {name: shapes.get(name, Any) for name in function.__annotations__}
    return beartype(function) if shapes else function


def _states_shape(hint: Any) -> bool:
    if isinstance(hint, type) and not get_args(hint):
        return issubclass(hint, AbstractArray)
    return any(_states_shape(argument) for argument in get_args(hint))


def install() -> None:
    """Check the modules that are imported from now on."""
    install_import_hook(list(CHECKED), "shape_checker.check_shapes")
