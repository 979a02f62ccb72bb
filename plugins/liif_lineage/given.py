"""The conditions that the decoders here are told: exactly these, and as wide as their formulas need."""

from collections.abc import Mapping


def expect_conditions(given: Mapping[str, int], **expected: int) -> None:
    """Raises ValueError where the conditions given, name -> width, are not those expected."""
    wrong = [f"{name!r} is {given[name]} wide" for name, width in expected.items() if given.get(name, width) != width]
    wrong += [f"{name!r} would have no effect" for name in given if name not in expected]
    if wrong:
        wanted = ", ".join(f"{name!r} of width {width}" for name, width in expected.items())
        raise ValueError(f"conditions: expected {wanted}; {', '.join(wrong)}")
