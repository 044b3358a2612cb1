"""Atomic writing: the target is complete, old or new, in case of any failure; checks of paths; locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from hesse.errors import FileFormatError, RequestError, WriteError
from hesse.runtime.filesystem import (
    atomic_write,
    atomic_write_text,
    check_input_file,
    check_output_path,
    check_picture_path,
    lock_file,
    open_without_links,
    picture_suffix,
    remove_abandoned,
    write_rows,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def half_write(target: Path, failure: BaseException) -> None:
    with atomic_write(target) as aside:
        aside.write_text("half")
        raise failure


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write_text(target, "one")
    atomic_write_text(str(target), "zwei ×")
    assert target.read_text(encoding="utf-8") == "zwei ×"
    assert names(tmp_path) == ["a.txt"]


def test_the_old_file_exists_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a.h5"
    target.write_text("old")
    with atomic_write(target) as aside:
        assert aside.parent == target.parent
        assert aside.suffix == ".h5"  # writers that look at the suffix must find it
        aside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(failure)):
        half_write(target, failure)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_a_write_error(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(
        WriteError, match=r"a\.txt: No space left on device.*existing file is unchanged.*free some space"
    ):
        half_write(target, OSError(28, "No space left on device"))
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def write_to_full_device(target: Path) -> None:
    with atomic_write(target) as aside, open("/dev/full", "w") as full:
        aside.write_text("new")
        full.write("x" * 10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_really_full_device_is_a_write_error(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(WriteError, match="No space left"):
        write_to_full_device(target)
    assert target.read_text() == "old"


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"there is no folder .*nowhere\. Create it first"):
        atomic_write_text(tmp_path / "nowhere" / "a.txt", "x")
    with pytest.raises(WriteError):
        atomic_write_text(tmp_path, "x")  # a folder cannot be replaced by a file
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_a_write_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(WriteError, match="Permission denied"):
            atomic_write_text(tmp_path / "a.txt", "x")
    finally:
        tmp_path.chmod(0o700)


def test_a_writer_killed_at_any_moment_leaves_a_complete_file(tmp_path: Path) -> None:
    """A process that rewrites a file repeatedly is killed by SIGKILL: the file is one of its complete versions."""
    target = tmp_path / "a.txt"
    code = (
        "import sys, itertools; from hesse.runtime.filesystem import atomic_write_text\n"
        "for k in itertools.count(): atomic_write_text(sys.argv[1], str(k % 10) * 300_000)"
    )
    for delay in (0.05, 0.083, 0.021):
        target.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", code, str(target)]) as process:
            while not target.exists():
                time.sleep(0.005)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        text = target.read_text()
        assert len(text) == 300_000
        assert len(set(text)) == 1


@dataclass(frozen=True)
class Row:
    name: str
    value: float | None


def test_rows_are_written_as_json(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    write_rows(target, [Row("Å", 1.5), {"name": "b", "value": None}])
    text = target.read_text(encoding="utf-8")
    assert json.loads(text) == [{"name": "Å", "value": 1.5}, {"name": "b", "value": None}]
    assert text.endswith("\n")
    assert "Å" in text
    with pytest.raises(ValueError, match="JSON compliant"):
        write_rows(target, [Row("a", float("nan"))])
    assert target.read_text(encoding="utf-8") == text
    write_rows(target, [])
    assert json.loads(target.read_text()) == []


LOCK = """
import sys
from pathlib import Path
from hesse.errors import RequestError
from hesse.runtime.filesystem import lock_file
try:
    with lock_file(Path(sys.argv[1]), "somebody is here"):
        print("locked", flush=True)
        sys.stdin.read()
except RequestError as error:
    print(error)
    sys.exit(2)
"""


def run_lock(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOCK, str(path)], capture_output=True, text=True, input="", check=False
    )


def test_a_lock_belongs_to_one_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock_file(path, "busy"):
        blocked = run_lock(path)
        assert (blocked.returncode, blocked.stdout) == (2, "somebody is here\n"), blocked.stderr
        with pytest.raises(RequestError, match="busy again"), lock_file(path, "busy again"):
            pass
        assert run_lock(path).returncode == 2  # the failed attempt in this process did not release the lock
    free = run_lock(path)
    assert (free.returncode, free.stdout) == (0, "locked\n"), free.stderr


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RequestError, match="busy"), lock_file(path, "busy"):
            pass
        process.send_signal(signal.SIGKILL)
    with lock_file(path, "busy"):
        assert path.read_bytes() == b""


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_without_locks_in_the_file_system_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """No protection, and no soft lock, which would stay behind when the process is killed."""

    def refuse(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / ".lock"
    with lock_file(path, "busy"), lock_file(path, "busy"):
        assert not path.exists() or path.read_bytes() == b""


def test_a_lock_needs_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / ".lock"
    with pytest.raises(WriteError, match="there is no such folder"), lock_file(path, "busy"):
        pass
    assert not path.parent.exists()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(WriteError, match=r"cannot write in .*: Is a directory"), lock_file(tmp_path / ".lock", "busy"):
        pass


def test_output_paths_are_checked(tmp_path: Path) -> None:
    source = tmp_path / "in.h5"
    source.write_text("precious")
    check_output_path(tmp_path / "out.h5", source)
    link = tmp_path / "link.h5"
    link.symlink_to(source)
    for target, reply in (
        (source, "would be overwritten"),
        (link, "would be overwritten"),
        (tmp_path / "sub" / ".." / "in.h5", "no folder"),
        (tmp_path, "this is a folder"),
        (tmp_path / "nowhere" / "out.h5", "no folder .*nowhere"),
    ):
        with pytest.raises(RequestError, match=reply):
            check_output_path(target, tmp_path / "absent.h5", source)


def test_pictures_are_checked(tmp_path: Path) -> None:
    assert [picture_suffix(name) for name in ("a.png", Path("b.SVG"))] == [".png", ".svg"]
    check_picture_path(tmp_path / "a.png")
    for target, reply in (
        (tmp_path / "a.jpg", "a.jpg: pictures are written as"),
        (tmp_path / "no" / "a.png", "folder"),
    ):
        with pytest.raises(RequestError, match=reply):
            check_picture_path(target)


def test_input_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"this is a folder, expected a model file"):
        check_input_file(tmp_path, "model file")
    with pytest.raises(FileFormatError, match=r"there is no such file"):
        check_input_file(tmp_path / "absent")
    with pytest.raises(WriteError, match="it is a folder"), atomic_write(tmp_path):
        pass


def test_a_lock_changes_no_file_of_others(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    link = tmp_path / ".lock"
    link.symlink_to(precious)
    with pytest.raises(WriteError, match="it is a link to another file"), lock_file(link, "busy"):
        pass
    with pytest.raises(WriteError, match="it is a link to another file"):
        open_without_links(link, "a")
    with lock_file(precious, "busy"):  # a file that somebody has named like a lock
        pass
    assert precious.read_text() == "data"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WriteError, match="not a file"), lock_file(tmp_path / "pipe", "busy"):
        pass
    with pytest.raises(WriteError, match="a device or a pipe"):
        atomic_write_text(tmp_path / "pipe", "x")


def test_only_abandoned_files_of_our_own_are_removed(tmp_path: Path) -> None:
    foreign = [".notes.part", ".other.h5.0123abcd.part.h5", ".model.hesse.part", ".model.hesse.0123abcd.part.txt"]
    for name in (*foreign, ".model.hesse.0123abcd.part.hesse"):
        (tmp_path / name).write_text("x")
    remove_abandoned(tmp_path, ["model.hesse"])
    assert names(tmp_path) == sorted(foreign)


def test_a_failed_write_names_the_file_that_failed(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot write .*a\.txt: .*other\.txt: No such file"):
        half_write(tmp_path / "a.txt", FileNotFoundError(2, "No such file", str(tmp_path / "other.txt")))
    with pytest.raises(WriteError, match=r"Read-only file system.*choose a folder in which you may write"):
        half_write(tmp_path / "a.txt", OSError(errno.EROFS, "Read-only file system"))
