"""Paths are checked before any work, and files are written atomically."""

import os
import secrets
import shutil
from pathlib import Path

from keras_precision.core.errors import DestinationError, nearest

__all__ = ["check_destination", "check_exists", "write_atomic", "write_private"]


def check_exists(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path at which there is a file or folder, such as ``"a model file"``, or raise with the nearest names."""
    file = Path(path)
    if not file.exists():
        near = nearest(file.name, os.listdir(file.parent)) if file.parent.is_dir() else ""
        raise FileNotFoundError(f"Expected {what}. Received: '{path}', which does not exist. {near}".rstrip())
    return file


def check_destination(path: str | os.PathLike[str], *, suffix: str | None = None) -> Path:
    """Return a path at which a file can be written, with that suffix if one is required, or raise ``DestinationError``."""
    if not isinstance(path, str | os.PathLike):
        raise DestinationError(f"Expected the path of a file. Received: {path!r}.")
    destination = Path(path)
    folder = destination.parent
    if suffix is not None and destination.suffix != suffix:
        raise DestinationError(
            f"Expected a path that ends in '{suffix}'. Received: '{destination}'. Rename it to '{destination.stem}{suffix}'."
        )
    if not folder.is_dir():
        raise DestinationError(
            f"Expected a folder that exists. Received: '{destination}', whose folder '{folder}' does not exist. Create it first."
        )
    if destination.is_dir():
        raise DestinationError(
            f"Expected the path of a file. Received: '{destination}', which is a folder. Add a file name."
        )
    try:
        handle, temporary = _open_temporary(destination)
        os.close(handle)
        temporary.unlink()
    except OSError as error:
        raise DestinationError(
            f"Expected a folder that can be written. Received: '{destination}', whose folder refuses new files "
            f"({error.strerror or error}). Choose another folder or name, or change its permissions."
        ) from error
    return destination


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file atomically: text as UTF-8, or bytes.

    A temporary file in the same folder is flushed to the disk and then renamed: an interruption at any moment leaves
    the old file, or none.
    """
    destination = check_destination(path)
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(destination))  # the file behind a link, not the link
    handle, temporary = _open_temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return destination


def write_private(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a new file that no other user can read or replace; its folder must be private as well.

    Loading a pickle runs code: whoever could write it would run theirs.
    """
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)


def _open_temporary(destination: Path) -> tuple[int, Path]:
    """Create a file in the folder of ``destination``; return its descriptor and its path."""
    temporary = destination.parent / f".{destination.name}.{secrets.token_hex(8)}"
    # 0o666 and not mkstemp's 0o600: the file gets the permissions of one that ``open`` creates.
    return os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), temporary
