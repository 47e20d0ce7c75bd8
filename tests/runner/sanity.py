# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `ansible-test sanity` needs on a machine that cannot ask its maintainers' server for get-pip."""

import os
import re
import subprocess
from pathlib import Path

from . import environments, pythons

_WANTED = re.compile(r"^The bootstrap script can be manually downloaded and saved to: (.+)$", re.MULTILINE)
_GET_PIP = """import runpy, sys
sys.path.insert(0, {wheel!r})
sys.argv[1:] = ["install"] + [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
runpy.run_module("pip", run_name="__main__")
"""
# One round for each release of pip that is missing: the controller's and the one for Python 3.6.
ROUNDS = 4
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _pythons_path() -> str:
    """ansible-test takes every Python on PATH, and pyenv's shims confuse it: the interpreters' own folders."""
    found = [pythons.find(version) for version in ("3.6", "3.11", "3.12", "3.13")]
    return os.pathsep.join(os.path.dirname(path) for path in found if path)


def _write_get_pip(path: Path) -> None:
    """Write a script that does what get-pip does, with the same release of pip from its wheel."""
    version = path.stem.removeprefix("get_pip_").replace("_", ".")
    wheels = environments.cache() / "pip-wheels"
    pip: list[str | Path] = [environments.tools() / "bin" / "python", "-m", "pip", "download", "-qq", "--no-deps"]
    words: list[str | Path] = ["--python-version", "3.11", "--only-binary", ":all:", "-d", wheels, f"pip=={version}"]
    subprocess.run([*pip, *words], check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_GET_PIP.format(wheel=str(wheels / f"pip-{version}-py3-none-any.whl")), encoding="utf-8")


def run(copy: Path, release: str, everything: bool = False) -> bool:
    """Run the sanity tests of a release of ansible-core over a copy of the tree; return whether they found nothing.

    What takes long and is the same with each release is done once: pep8 with the newest. What import finds, a module that
    is not in the standard library or one that prints, no Python between the oldest and the newest finds alone, and the unit
    tests import all of it on 3.11; so each release has one of these two. pylint, which takes longer than all the rest,
    looks at what is shipped: the plugins.

    :param everything: whether pylint looks at tests and tools as well, which ruff and mypy look at every time.
    """
    # It takes every file in bin/ for Python; shellcheck and ruff look at those.
    words = ["--skip-test", "pslint", "--skip-test", "import", "--skip-test", "pylint", "--exclude", "bin/"]
    newest = release == environments.newest_core()
    words += [] if newest else ["--skip-test", "pep8"]
    lint = ["--test", "pylint", *(["--exclude", "bin/"] if everything else ["plugins/"])]
    return all(_run(copy, release, options) for options in (words, _import("3.13" if newest else "3.6"), lint))


def _import(version: str) -> list[str]:
    """Return the options to import everything on a version of Python, or on all that there are where this machine has none."""
    return ["--test", "import", *(["--python", version] if pythons.find(version) else [])]


def _run(copy: Path, release: str, options: list[str]) -> bool:
    venv = environments.core(release)
    if not venv:
        return False
    # ansible-test keeps environments of its own in HOME, and only one of them may be made at a time.
    home = environments.cache() / f"sanity-{venv.name}"
    path = os.pathsep.join([str(venv / "bin"), _pythons_path(), SYSTEM_PATH])
    words = ["ansible-test", "sanity", "--local", "--color", "no", *options]
    with environments.locked(environments.cache() / f"sanity-{venv.name}.lock"):
        home.mkdir(exist_ok=True)
        for _round in range(ROUNDS):
            # Its output is read below, so it cannot go to the log by itself.
            done = subprocess.run(
                [venv / "bin" / words[0], *words[1:]], cwd=copy, env=os.environ | {"HOME": str(home), "PATH": path},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
            )  # fmt: skip
            wanted = _WANTED.search(done.stdout)
            print(done.stdout, flush=True)
            if not done.returncode or not wanted:
                return not done.returncode
            print(f"No get-pip from the network: one is made from pip's wheel: {wanted[1]}", flush=True)
            _write_get_pip(Path(wanted[1].strip()))
    return False
