"""Files: checked before the work, and written whole or not at all."""

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import keras_precision as kp
from keras_precision.core.errors import DestinationError
from keras_precision.core.system import files
from keras_precision.core.system.files import (
    check_destination,
    check_exists,
    replace_folder,
    working_folder,
    write_atomic,
    write_private,
)


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """``os.umask``, undone after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def failing(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises ``error``, whatever it is given."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("suffix", [None, ".tflite"])
def test_a_good_destination_is_returned(tmp_path: Path, suffix: str | None) -> None:
    """A path that can be written comes back as a path, and nothing is left there."""
    path = tmp_path / "model.tflite"
    assert check_destination(str(path), suffix=suffix) == path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [5, None, b"plan.json"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    """A number, nothing, or bytes."""
    with pytest.raises(DestinationError, match=r"Expected the path of a file\. Received: "):
        check_destination(path)


def test_a_bare_name_goes_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a folder is one in the working folder."""
    monkeypatch.chdir(tmp_path)
    assert write_atomic("plan.json", "{}") == Path("plan.json")
    assert (tmp_path / "plan.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/model.tflite", r"Expected a folder that exists\. .*absent/model\.tflite', whose folder '.*absent'"),
        ("file/model.tflite", r"Expected a folder that exists\. .*whose folder '.*file' does not exist"),
        ("folder.tflite", r"Expected the path of a file\. .*folder\.tflite', which is a folder\. Add a file name"),
        ("model.keras", r"ends in '\.tflite'\. Received: '.*model\.keras'\. Rename it to 'model\.tflite'"),
        ("model", r"ends in '\.tflite'\. Received: '.*model'\. Rename it to 'model\.tflite'"),
    ],
)
def test_a_bad_destination_is_refused(tmp_path: Path, name: str, message: str) -> None:
    """The message names the path, what is wrong with it, and what to do."""
    (tmp_path / "file").touch()
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(DestinationError, match=message):
        check_destination(tmp_path / name, suffix=".tflite")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A folder that cannot be written is refused with the reason of the system."""
    monkeypatch.setattr(os, "open", failing(OSError(code, os.strerror(code))))
    with pytest.raises(DestinationError, match=rf"refuses new files \({os.strerror(code)}\)\. Choose another folder"):
        check_destination(tmp_path / "plan.json")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no folder that refuses even its owner")
@pytest.mark.parametrize("act", [check_destination, lambda path: write_atomic(path, "{}")], ids=["check", "write"])
def test_a_folder_that_really_refuses(act: Callable[[str], Path]) -> None:
    """A folder of the system that takes no files is refused, whoever runs the test."""
    with pytest.raises(DestinationError, match=r"'/proc/self/plan\.json', whose folder refuses new files"):
        act("/proc/self/plan.json")


@pytest.mark.parametrize(
    ("content", "expected"), [(b"\x00\xff", b"\x00\xff"), ("größer\n", "größer\n".encode()), (b"", b"")]
)
@pytest.mark.parametrize("before", [None, b"a longer content than the new one"])
def test_content_is_written_as_given(tmp_path: Path, content: bytes | str, expected: bytes, before: bytes) -> None:
    """Bytes stay as they are, text becomes UTF-8, and an older file is replaced."""
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    assert write_atomic(path, content) == path
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt("Ctrl-C")])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_interruption_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException, before: str | None
) -> None:
    """When writing stops half-way, the old file or none is there, and no temporary one."""
    path = tmp_path / "plan.json"
    if before is not None:
        path.write_text(before)
    monkeypatch.setattr(os, step, failing(error))
    with pytest.raises(type(error), match=r"No space left|Ctrl-C"):
        write_atomic(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == ([("plan.json", before)] if before else [])


def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file stands beside the final one, and is flushed before it is renamed."""
    calls: list[tuple[str, object]] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(("fsync", os.fstat(handle).st_size)), fsync(handle)))
    monkeypatch.setattr(
        os, "replace", lambda old, new: (calls.append(("replace", Path(old).parent)), replace(old, new))
    )
    write_atomic(tmp_path / "plan.json", "12345")
    assert calls == [("fsync", 5), ("replace", tmp_path)]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_that_open_gives(tmp_path: Path, umask: Callable[[int], int], mask: int) -> None:
    """A new file has the permissions that ``open`` would give it, not those of a temporary file."""
    umask(mask)
    with (tmp_path / "opened").open("w"):
        pass
    written = write_atomic(tmp_path / "written", "")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE((tmp_path / "opened").stat().st_mode) == 0o666 & ~mask


def test_the_file_behind_a_link_is_written(tmp_path: Path) -> None:
    """A link stays a link, and the file behind it keeps its permissions."""
    target = tmp_path / "target.json"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link.json").symlink_to(target)
    write_atomic(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_name_that_is_too_long_is_refused_at_once(tmp_path: Path) -> None:
    """What the file system cannot hold is found by the check, not after the work."""
    with pytest.raises(DestinationError, match="File name too long"):
        check_destination(tmp_path / ("n" * 250))


def test_a_missing_file_is_answered_with_the_nearest_names(tmp_path: Path) -> None:
    """The message offers what lies in the same folder, and nothing where there is no folder."""
    (tmp_path / "model.keras").touch()
    assert check_exists(tmp_path / "model.keras", "a model") == tmp_path / "model.keras"
    with pytest.raises(
        FileNotFoundError, match=r"Expected a model\. .*which does not exist\. Did you mean 'model.keras'\?$"
    ):
        check_exists(tmp_path / "modle.keras", "a model")
    with pytest.raises(FileNotFoundError, match=r"which does not exist\.$"):
        check_exists(tmp_path / "gone" / "model.keras", "a model")


def test_missing_results_and_plans_are_answered_alike(tmp_path: Path) -> None:
    """What is loaded, and what a report is made from, names its neighbours."""
    kp.Result("run").save(tmp_path / "float32.json")
    for load in (kp.Result.load, kp.PrecisionPlan.load, kp.render):
        with pytest.raises(FileNotFoundError, match="Did you mean 'float32.json'"):
            load(tmp_path / "flaot32.json")


def test_a_private_file_is_for_its_owner_alone(tmp_path: Path, umask: Callable[[int], int]) -> None:
    """Whatever the user's mask lets others do; and it takes no other file's place."""
    umask(0)
    path = tmp_path / "job"
    write_private(path, b"content")
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_private(path, b"other")
    assert path.read_bytes() == b"content"


def fifo(path: Path) -> None:
    """A named pipe."""
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    """A socket of the file system."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def link_to_a_device(path: Path) -> None:
    """A link to what takes everything; renaming over a device itself would be dangerous where the code is wrong."""
    path.symlink_to("/dev/null")


@pytest.mark.skipif(os.name != "posix", reason="these are files of POSIX systems")
@pytest.mark.parametrize(
    ("make", "kind"), [(fifo, "a pipe"), (bound_socket, "a socket"), (link_to_a_device, "a device")]
)
def test_only_regular_files_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], kind: str
) -> None:
    """A rename over a pipe, a device or a socket would remove it for everybody who uses it."""
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    path = Path("plan.json")
    make(path)
    before = path.stat()
    for save in (kp.PrecisionPlan.training("float32").save, kp.Result("run").save, check_destination):
        with pytest.raises(DestinationError, match=rf"regular file\. Received: 'plan\.json', which is {kind}"):
            save(path)
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("name", ["pl\0an.json", "n" * 300])
def test_names_that_no_file_system_takes_are_refused(tmp_path: Path, name: str) -> None:
    """As destinations and as sources, with the error that any other bad name gets."""
    with pytest.raises(DestinationError, match="whose folder refuses new files"):
        check_destination(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="Expected a model"):
        check_exists(tmp_path / name, "a model")


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell may stand in a folder that another one removed."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(DestinationError, match="whose folder refuses new files"):
        check_destination("plan.json")
    with pytest.raises(FileNotFoundError, match="Expected a plan"):
        check_exists("plan.json", "a plan")


KILLED_WHILE_WRITING = """
import os, sys
from keras_precision.core.system import files
os.fsync = lambda handle: os.kill(os.getpid(), 9)
files.write_atomic(sys.argv[1], "new")
"""


@pytest.mark.skipif(os.name != "posix", reason="another system has other signals")
def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    """By the next one that writes there; what only looks like it, and the partial result of a run, stay."""
    path = tmp_path / "plan.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, path], env=environment, check=False)
    (leftover,) = tmp_path.iterdir()
    others = {"plan.json.partial", ".plan.json.backup", ".other.json.0123456789abcdef"}
    for name in others:
        (tmp_path / name).touch()
    write_atomic(path, "{}")
    assert {entry.name for entry in tmp_path.iterdir()} == {"plan.json", *others}
    assert leftover.name.startswith(".plan.json.")


def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    """A temporary file that is open belongs to somebody, and so does a working folder."""
    path = tmp_path / "plan.json"
    handle, temporary = files._open_temporary(path)
    try:
        with working_folder(path) as folder:
            write_atomic(path, "{}")
            assert temporary.exists()
            assert folder.is_dir()
        assert not folder.exists()
    finally:
        os.close(handle)
    write_atomic(path, "{}")
    assert not temporary.exists()


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("linked", [True, False])
def test_a_folder_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool, swaps: bool
) -> None:
    """As a whole, through a link, and with the permissions of the old one; also where the system cannot swap two."""
    if not swaps:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    (tmp_path / "places").mkdir()
    old = tmp_path / "places" / "model.mlpackage"
    old.mkdir(mode=0o750)
    (old / "old").touch()
    path = tmp_path / "link.mlpackage" if linked else old
    if linked:
        path.symlink_to(old)
    with working_folder(path) as folder:
        (folder / "new.mlpackage").mkdir()
        (folder / "new.mlpackage" / "new").touch()
        replace_folder(folder / "new.mlpackage", path)
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert path.is_symlink() == linked
    assert [entry.name for entry in (tmp_path / "places").iterdir()] == ["model.mlpackage"]


def test_a_folder_goes_where_there_was_none(tmp_path: Path) -> None:
    """The first export has nothing to replace."""
    with working_folder(tmp_path / "model.mlpackage") as folder:
        (folder / "new").mkdir()
        replace_folder(folder / "new", tmp_path / "model.mlpackage")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.mlpackage"]
