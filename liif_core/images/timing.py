"""How an animation is played."""

from attrs import frozen


@frozen
class Timing:
    """``milliseconds`` for which each frame is shown, and how often the animation plays; 0 ``plays`` are for ever."""

    milliseconds: tuple[float, ...]
    plays: int

    def whole_milliseconds(self) -> list[int]:
        """The same in whole numbers, rounded so that no frame begins more than half a millisecond off."""
        starts, total = [0], 0.0
        for duration in self.milliseconds:
            total += duration
            starts.append(round(total))
        return [end - start for start, end in zip(starts, starts[1:])]
