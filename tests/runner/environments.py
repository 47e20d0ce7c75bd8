# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments in a cache that outlives the clone.

One is made once for each interpreter and set of requirements, by uv where uv can be had. Any number of clones
and sessions may ask for the same one at once. nox's own environments, one for each session inside of the clone,
would be made again for every clone and for every session that wants the same tools.
"""

import ast
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from . import packages, pythons

ROOT = Path(__file__).resolve().parents[2]
# A release of ansible-core to the Pythons that can run it, the preferred one first.
CORES = {
    "2.16": ("3.11", "3.12", "3.10"),
    "2.17": ("3.11", "3.12", "3.10"),
    "2.18": ("3.11", "3.12", "3.13"),
    "2.19": ("3.11", "3.12", "3.13"),
    "2.20": ("3.13", "3.12", "3.14"),
    "2.21": ("3.13", "3.12", "3.14"),
}
TOOLS = ("nox>=2024.10", "antsibull-nox>=1,<2")
UV = "uv>=0.5"
# The collections that users have beside this one come inside of the package ansible; one of them is used.
COMMUNITY_PACKAGE = "ansible==11.*"
UNUSED_DAYS = 60
RETRY_SECONDS = 3600
"""How long uv is not asked for again where it could not be installed: once a run, not once an environment."""


def cache() -> Path:
    """Return the folder that outlives the clone."""
    if os.environ.get("PORTKNOCK_CACHE"):
        return Path(os.environ["PORTKNOCK_CACHE"])
    if os.geteuid() == 0:
        return Path("/var/cache/sesame.portknock")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sesame.portknock"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that all clones of this user share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def requirements(name: str) -> list[str]:
    """Return the lines of tests/requirements-NAME.txt that say something."""
    lines = (ROOT / "tests" / f"requirements-{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def environment(name: str, python: str, wanted: list[str]) -> Path:
    """Return the folder of a virtual environment, made anew where it is missing, broken or a month old.

    :param name: what it is called, in the cache and as the link .cache/venv/NAME.
    :param python: the path of its interpreter.
    :param wanted: requirements as pip takes them.
    """
    how = Path(__file__).read_text(encoding="utf-8")
    made_of = [name, python, _run([python, "-VV"]), time.strftime("%Y-%m"), how, *wanted]
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    folder = cache() / "venv" / f"{name}-{key}"
    with locked(folder.parent / f"{folder.name}.lock"):
        if not _works(folder):
            print(f"Making the virtual environment {name} with {python}", flush=True)
            try:
                _make(folder, python, wanted)
            except subprocess.CalledProcessError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            _remove_unused(folder.parent)
        (folder / "made").touch()
    _link(ROOT / ".cache" / "venv" / name, folder)
    return folder


def named(name: str, python: str | None = None) -> Path:
    """Return the virtual environment with the requirements of a file, of the tests' own Python if none is given."""
    return environment(name, python or controller(), requirements(name))


def controller() -> str:
    """Return the path of the Python that runs the tools."""
    return pythons.controller() or sys.exit("There is no Python 3.10 or later on this machine.")


def core(release: str) -> Path | None:
    """Return the virtual environment of a release of ansible-core; None where no Python here can run it."""
    python = pythons.first(*CORES[release])
    return environment(f"core-{release}", python, [f"ansible-core~={release}.0"]) if python else None


def newest_core() -> str:
    """Return the newest release of ansible-core that a Python of this machine can run."""
    return [release for release, versions in CORES.items() if pythons.first(*versions)][-1]


def tools() -> Path:
    """Return the virtual environment of nox and uv: the one that pip makes."""
    missing = cache() / "uv-missing"
    if not missing.exists() or missing.stat().st_mtime < time.time() - RETRY_SECONDS:
        try:
            return environment("tools", controller(), [*TOOLS, UV])
        except subprocess.CalledProcessError:
            print("uv cannot be had: pip makes the virtual environments, which takes longer.", flush=True)
            missing.touch()
    return environment("tools", controller(), list(TOOLS))


def _run(words: list[str]) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _distributions(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.glob("lib/python*/site-packages/*.dist-info/METADATA")
    )


def _works(folder: Path) -> bool:
    """Return whether an environment was finished, and is as it was then as far as can be seen quickly."""
    try:
        expected = (folder / "made").read_text(encoding="utf-8").split("\n")
        subprocess.run([folder / "bin" / "python", "-c", "import encodings"], check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return expected == _distributions(folder) and all((folder / name).stat().st_size for name in expected)


def _make(folder: Path, python: str, wanted: list[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = _uv() if folder.name.split("-")[0] != "tools" and pythons.version_of(python) != "3.6" else None
    if not uv or not _make_with_uv(uv, folder, python, wanted):
        _make_with_pip(folder, python, wanted)
    (folder / "made").write_text("\n".join(_distributions(folder)), encoding="utf-8")


def _make_with_uv(uv: str, folder: Path, python: str, wanted: list[str]) -> bool:
    """Return whether uv could do it; pip may be able to where uv is not, with a proxy or an index that it asks otherwise."""
    options: list[str | Path] = ["--quiet", "--compile-bytecode", "--python", folder / "bin" / "python"]
    try:
        subprocess.run([uv, "venv", "--quiet", "--python", python, folder], check=True)
        # Compiled once, as pip does: no test writes bytecode, and every ansible-playbook would compile all of Ansible.
        subprocess.run([uv, "pip", "install", *options, *wanted], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"uv cannot make {folder.name} ({error}); trying pip.", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _make_with_pip(folder: Path, python: str, wanted: list[str]) -> None:
    packages.need_venv_of(python)
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    # The pip that Python 3.6 brings is too old to choose wheels well, or the last pip that runs there.
    subprocess.run([*pip, "--upgrade", "pip" if pythons.version_of(python) != "3.6" else "pip<22"], check=True)
    subprocess.run([*pip, *wanted], check=True)


def _uv() -> str | None:
    path = tools() / "bin" / "uv"
    return str(path) if path.exists() else None


def _link(path: Path, folder: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.symlink_to(folder)
    new.replace(path)


def _remove_unused(parent: Path) -> None:
    """Remove the environments that have not been used for a long time."""
    for mark in parent.glob("*/made"):
        if mark.stat().st_mtime < time.time() - UNUSED_DAYS * 86400:
            shutil.rmtree(mark.parent, ignore_errors=True)


def posix_collection() -> Path:
    """Return a folder with the collection ansible.posix below ansible_collections."""
    folder = cache() / "posix"
    with locked(cache() / "posix.lock"):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(cache() / "posix-download", ignore_errors=True)
            pip: list[str | Path] = [
                tools() / "bin" / "python",
                "-m",
                "pip",
                "download",
                "-qq",
                "--no-deps",
                "--only-binary=:all:",
            ]
            subprocess.run([*pip, "-d", cache() / "posix-download", COMMUNITY_PACKAGE], check=True)
            (wheel,) = (cache() / "posix-download").glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.startswith("ansible_collections/ansible/posix/")]
                archive.extractall(folder, names)
            shutil.rmtree(cache() / "posix-download")
            (folder / "made").touch()
    _link(ROOT / ".cache" / "posix", folder)
    return folder


def _pip_settings() -> dict[str, str]:
    """Return what pip is configured with, as the variables that mean the same to it: PIP_INDEX_URL and the like."""
    found = {}
    lines = _run([controller(), "-m", "pip", "config", "list"]).splitlines()
    # As pip ranks them: a variable wins over the section of the command, and that over the global one.
    for line in sorted(lines, key=lambda line: (line.startswith(":env:"), line)):
        key, _sign, value = line.partition("=")
        section, _dot, option = key.partition(".")
        if section in (":env:", "global", "install"):
            found["PIP_" + option.lstrip(".").replace("-", "_").upper()] = str(ast.literal_eval(value))
    return found


def settings() -> dict[str, str]:
    """Return the variables for pip and uv: the same sources of packages for both, and caches that outlive the clone.

    What the user has set for uv stays as it is.
    """
    try:
        pip = _pip_settings()
    except (OSError, subprocess.CalledProcessError):
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    uv = {
        "UV_DEFAULT_INDEX": pip.get("PIP_INDEX_URL", ""),
        "UV_INDEX": " ".join(pip.get("PIP_EXTRA_INDEX_URL", "").split()),
        "UV_FIND_LINKS": ",".join(pip.get("PIP_FIND_LINKS", "").split()),
        "UV_NO_INDEX": "1" if pip.get("PIP_NO_INDEX", "").lower() in ("1", "true", "yes", "on") else "",
        "UV_CONSTRAINT": pip.get("PIP_CONSTRAINT", ""),
        "UV_INSECURE_HOST": " ".join(pip.get("PIP_TRUSTED_HOST", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("PIP_DEFAULT_TIMEOUT", pip.get("PIP_TIMEOUT", "")),
        "SSL_CERT_FILE": pip.get("PIP_CERT", ""),
        # As pip does: the best release of all the sources, not the one of the first that has any.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CACHE_DIR": str(cache() / "uv"),
    }
    pip["PIP_CACHE_DIR"] = os.environ.get("PIP_CACHE_DIR", str(cache() / "pip"))
    return pip | {name: os.environ.get(name, value) for name, value in uv.items() if os.environ.get(name, value)}
