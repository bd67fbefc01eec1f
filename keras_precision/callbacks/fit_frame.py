"""Caller: whether a fit that has begun is still running."""

import sys
import threading
from types import FrameType

__all__ = ["Caller"]


class Caller:
    """The ``fit`` that calls a callback, told by the frame that it runs in.

    A fit that was interrupted tells nobody that it is over. Its frame does: it is no longer on the
    stack of its thread. The frame itself is not kept, because it holds the training data.

    Args:
        depth: Frames between the maker of this object and the fit.

    Example:
        >>> Caller(0).is_running()
        True
    """

    def __init__(self, depth: int = 0) -> None:
        frame = sys._getframe(1)
        for _ in range(depth):
            frame = frame.f_back or frame
        self.thread = threading.get_ident()
        self._frame, self._code = id(frame), frame.f_code

    def is_running(self, beside: "Caller | None" = None) -> bool:
        """Tell whether the fit has not ended.

        Args:
            beside: A fit that began later and is known to run: a frame at the same place as one that
                is gone is its own.

        Returns:
            Whether it is on the stack of its thread.
        """
        frame: FrameType | None = sys._current_frames().get(self.thread)
        skipped = None if beside is None else beside._frame
        while frame is not None:
            if id(frame) == self._frame != skipped and frame.f_code is self._code:
                return True
            frame = frame.f_back
        return False
