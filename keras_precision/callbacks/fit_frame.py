"""FitFrame: whether a fit that has begun is still running."""

import sys
import threading
from types import FrameType

__all__ = ["FitFrame"]


class FitFrame:
    """The stack frame of a running ``fit``, ``depth`` frames above the caller of the constructor.

    Keras calls no hook when a fit is interrupted, but its frame leaves the stack of its thread. Only the frame's
    identity is stored: a reference to the frame would keep the training data alive.

    Example:
        >>> FitFrame(0).is_running()
        True
    """

    def __init__(self, depth: int = 0) -> None:
        frame = sys._getframe(1)
        for _ in range(depth):
            frame = frame.f_back or frame
        self.thread = threading.get_ident()
        self._frame, self._code = id(frame), frame.f_code

    def is_running(self, newer: "FitFrame | None" = None) -> bool:
        """Return whether the fit is still on the stack of its thread.

        A frame at the address of ``newer``, a fit that began later and is known to run, is not counted: Python reuses
        the addresses of frames.
        """
        frame: FrameType | None = sys._current_frames().get(self.thread)
        skipped = None if newer is None else newer._frame
        while frame is not None:
            if id(frame) == self._frame != skipped and frame.f_code is self._code:
                return True
            frame = frame.f_back
        return False
