# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The interpreters of this machine, wherever PATH or pyenv has them.

Run as a program it prints the one that runs the tests' own tools; any Python 3.6 or later can do that.
"""

import contextlib
import functools
import glob
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator

# What the tools of the tests run on where the machine's own python3 is too old for them.
OTHERS = ("3.11", "3.12", "3.13", "3.10", "3.14")
OLDEST_CONTROLLER = (3, 10)
FOLDERS = ("/usr/bin", "/usr/local/bin")
PYENV_ROOTS = ("/root/.pyenv", "/opt/pyenv", "/usr/local/pyenv", "/usr/local/share/pyenv")


def _homes() -> Iterator[str]:
    """The homes that a pyenv may lie in: a test run has a HOME of its own, and sudo has another."""
    for name in ("USER_HOME", "HOME"):
        if os.environ.get(name):
            yield os.environ[name]
    for user in (os.environ.get("SUDO_UID"), str(os.getuid())):
        with contextlib.suppress(KeyError, ValueError):
            yield pwd.getpwuid(int(user or "")).pw_dir


def _path_folders() -> list[str]:
    return [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)]


def _pyenv_roots() -> Iterator[str]:
    if os.environ.get("PYENV_ROOT"):
        yield os.environ["PYENV_ROOT"]
    for folder in _path_folders():
        if os.path.basename(folder.rstrip("/")) == "shims":
            yield os.path.dirname(folder.rstrip("/"))
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        yield _output(["pyenv", "root"])
    for home in _homes():
        yield os.path.join(home, ".pyenv")
    yield from PYENV_ROOTS


def _candidates(version: str) -> Iterator[str]:
    name = "python" + version
    for folder in FOLDERS:
        yield os.path.join(folder, name)
    for root in _pyenv_roots():
        yield from sorted(glob.glob(os.path.join(root, "versions", version + ".*", "bin", name)))
    for folder in _path_folders():
        yield os.path.join(folder, name)


def _output(words: list[str]) -> str:
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=60)
    return done.stdout.decode("utf-8", "replace").strip()


@functools.cache
def version_of(python: str) -> str | None:
    """Return the version of an interpreter, as 3.11; None where it does not run, as a pyenv shim that is off."""
    if not os.access(python, os.X_OK):
        return None
    try:
        return _output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def find(version: str) -> str | None:
    """Return the path of the interpreter of a version, as 3.11, or None."""
    for path in _candidates(version):
        if version_of(path) == version:
            return path
    return None


def first(*versions: str) -> str | None:
    """Return the first of the versions that this machine has, as a path, or None."""
    for version in versions:
        path = find(version)
        if path:
            return path
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split("."))


def controller() -> str | None:
    """Return the Python that a user would run Ansible with: the machine's own where it is new enough."""
    for folder in list(_path_folders()) + list(FOLDERS):
        own = version_of(os.path.join(folder, "python3"))
        if own:
            # By its full name: a shim, or a virtual environment that is active now, may be gone tomorrow.
            if _numbers(own) >= OLDEST_CONTROLLER and find(own):
                return find(own)
            break
    return first(*OTHERS)


if __name__ == "__main__":
    print(controller() or sys.exit("no Python 3.10 or later on this machine"))
