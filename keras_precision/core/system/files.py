"""Paths are checked before any work, and files are written atomically."""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from keras_precision.core.errors import DestinationError, nearest

if sys.platform != "win32":
    import fcntl

__all__ = [
    "check_destination",
    "check_exists",
    "remove_leftovers",
    "replace_folder",
    "working_folder",
    "write_atomic",
    "write_private",
]


def check_exists(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path at which there is a file or folder, such as ``"a model file"``, or raise with the nearest names."""
    file = Path(path)
    if not os.path.exists(file):
        near = nearest(file.name, _names_in(file.parent))
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
    if not os.path.isdir(folder):  # and not Path.is_dir, which raises for a name that is too long
        raise DestinationError(
            f"Expected a folder that exists. Received: '{destination}', whose folder '{folder}' does not exist. Create it first."
        )
    if os.path.isdir(destination):
        raise DestinationError(
            f"Expected the path of a file. Received: '{destination}', which is a folder. Add a file name."
        )
    _check_regular(destination)
    try:
        remove_leftovers(destination)
        handle, temporary = _open_temporary(destination)
        os.close(handle)
        temporary.unlink()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise DestinationError(
            f"Expected a folder that can be written. Received: '{destination}', whose folder refuses new files "
            f"({getattr(error, 'strerror', None) or error}). Choose another folder or name, or change its permissions."
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
    remove_leftovers(target)
    handle, temporary = _open_temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if (
            isinstance(error, OSError) and error.filename is None
        ):  # a full disk does not say which file it had no room for
            error.filename = os.fspath(destination)
        raise
    return destination


def write_private(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a new file that no other user can read or replace; its folder must be private as well.

    Loading a pickle runs code: whoever could write it would run theirs.
    """
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)


@contextlib.contextmanager
def working_folder(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder beside ``destination``, to prepare what goes there, and remove it at the end."""
    target = Path(os.path.realpath(destination))
    remove_leftovers(target)
    folder = _temporary_name(target)
    folder.mkdir(mode=0o700)
    handle = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    try:
        if handle is not None:
            _lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def replace_folder(source: Path, destination: Path) -> None:
    """Put a finished folder, of the same file system, in the place of another, which goes to ``source``, or of none."""
    target = Path(os.path.realpath(destination))
    if not target.exists():
        os.rename(source, target)
        return
    shutil.copymode(target, source)
    if not _exchange(source, target):
        kept = source.with_name(f"{source.name}.old")
        os.rename(target, kept)
        os.rename(source, target)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one call of the system, so that none is ever missing; return False where it has no such call."""
    if os.name != "posix":
        return False
    library, names = ctypes.CDLL(None), (os.fsencode(first), os.fsencode(second))
    if hasattr(library, "renameat2"):  # Linux: https://man7.org/linux/man-pages/man2/rename.2.html
        return bool(library.renameat2(_HERE, names[0], _HERE, names[1], _SWAP) == 0)
    if hasattr(library, "renamex_np"):  # macOS
        return bool(library.renamex_np(*names, _SWAP) == 0)
    return False


_HERE, _SWAP = -100, 2  # AT_FDCWD; RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS


def _check_regular(destination: Path) -> None:
    """Raise for a pipe, a device or a socket: renaming a file over it would remove it for everybody."""
    try:
        mode = os.stat(destination).st_mode
    except (OSError, ValueError):  # there is no file yet
        return
    if not stat.S_ISREG(mode):
        kind = next((name for check, name in _SPECIAL if check(mode)), "no regular file")
        raise DestinationError(
            f"Expected the path of a regular file. Received: '{destination}', which is {kind}. "
            "Save to a regular file, and copy it from there."
        )


_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def _open_temporary(destination: Path) -> tuple[int, Path]:
    """Create a file in the folder of ``destination``, locked while it is open; return its descriptor and its path."""
    while True:
        temporary = _temporary_name(destination)
        # 0o666 and not mkstemp's 0o600: the file gets the permissions of one that ``open`` creates.
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        _lock(handle)
        if temporary.exists():
            return handle, temporary
        os.close(handle)  # another process took it for a leftover before it was locked


def _temporary_name(destination: Path) -> Path:
    return destination.parent / f".{destination.name}.{secrets.token_hex(8)}"


def remove_leftovers(destination: Path) -> None:
    """Remove the temporary files and folders of processes that ended while they wrote ``destination``."""
    pattern = re.compile(rf"\.{re.escape(destination.name)}\.[0-9a-f]{{16}}")
    for name in filter(pattern.fullmatch, _names_in(destination.parent)):
        leftover = destination.parent / name
        with contextlib.suppress(OSError):  # another process removes it, too
            handle = os.open(leftover, os.O_RDONLY)
            try:
                if _lock(handle):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file or folder; return False if another process has done so, or if the file system knows no locks."""
    if sys.platform == "win32":  # which refuses by itself to remove a file that is open
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _names_in(folder: Path) -> list[str]:
    """Return the names in a folder; none where it cannot be read."""
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []
