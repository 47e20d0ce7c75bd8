# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a host, on real files: who can hold it, and what is said of who does."""

import contextlib
import os
import subprocess
import sys

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host import lock as _lock
from ansible_collections.sesame.portknock.plugins.module_utils._host.lock import Lock, LockedError


@pytest.fixture
def directory(tmp_path, monkeypatch):
    made = tmp_path / "portknock.d"
    monkeypatch.setattr(_lock, "LOCK_DIRECTORY", str(made))
    monkeypatch.setattr(_lock, "LOCK", str(made / "lock"))
    return made


def mode(path):
    return path.stat().st_mode & 0o777


def test_it_is_private_from_its_birth(directory):
    """Even before it is held: who has opened it once can hold it."""
    old = os.umask(0)
    try:
        with Lock().hold(0):
            assert (mode(directory), mode(directory / "lock")) == (0o700, 0o600)
    finally:
        os.umask(old)


@contextlib.contextmanager
def held(path):
    """Hold a lock in another process."""
    text = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", text, str(path)], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_who_holds_it_is_named(directory):
    with Lock().hold(0):
        pass
    with held(directory / "lock") as pid:
        assert Lock().holder() == pid
        with open("/proc/{0}/comm".format(pid)) as stream:
            name = stream.read().strip()
        with pytest.raises(LockedError) as error, Lock().hold(0.1):
            pass
        assert str(error.value) == (
            "process {0} ({1}) has held {2} for 0.1 s: another change is at work. Wait for it, or end that process, then run "
            "this again. Nothing was changed.".format(pid, name, directory / "lock")
        )
    assert Lock().holder() is None
    with Lock().hold(0):
        pass


@pytest.mark.parametrize("bits", [0o755, 0o710, 0o702])
def test_a_directory_that_others_look_into_is_refused(bits, directory):
    directory.mkdir()
    directory.chmod(bits)
    with pytest.raises(
        HostError, match=r"is not a directory that belongs to root alone .*Nothing was changed"
    ), Lock().hold(0):
        pass
    assert not list(directory.iterdir())


def test_a_link_is_refused(directory, tmp_path):
    (tmp_path / "elsewhere").mkdir(0o700)
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="belongs to root alone"), Lock().hold(0):
        pass
    directory.unlink()
    directory.mkdir(0o700)
    (directory / "lock").symlink_to(tmp_path / "elsewhere" / "lock")
    with pytest.raises(HostError, match="cannot be written: Too many levels of symbolic links"), Lock().hold(0):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.usefixtures("directory")
def test_somebody_else_than_root_needs_become(monkeypatch):
    def refuse(*_words):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_lock.os, "mkdir", refuse)
    monkeypatch.setattr(_lock.os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match=r"only root can change packet filter rules.*Set become: true"), Lock().hold(0):
        pass
