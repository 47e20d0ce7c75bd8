# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The working tree: its files, and copies of it for the tools that want a real collection or leave files behind."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SHELL = re.compile(r"#!.*[/ ](ba)?sh\b")


def _git(*words: str) -> str:
    # The tree may belong to the user who called sudo.
    command = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", *words]
    return os.fsdecode(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def clone_id() -> str:
    """Return what tells this clone from the others on the machine, for names of things that all of them share."""
    return hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]


def project_files() -> list[str]:
    """Return the names of the files that git knows or would add."""
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sorted({name for name in names if name and os.path.lexists(ROOT / name)})


def shell_scripts() -> list[str]:
    """Return the names of the files that sh or bash runs."""
    return [name for name in project_files() if name.endswith(".sh") or _SHELL.match(_first_line(ROOT / name))]


def _first_line(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as handle:
        return handle.readline()


def clean_commit() -> str | None:
    """Return the hash of the commit that the tree is, or None where files differ from it."""
    return None if _git("status", "--porcelain").strip() else _git("rev-parse", "HEAD").strip()


def copy_collection(name: str) -> Path:
    """Make a fresh copy of the tree at .../ansible_collections/sesame/portknock, in a git repository of its own.

    Each name has one, so that checks can run beside each other.
    """
    top = ROOT / ".cache" / "copy" / re.sub(r"\W+", "-", name)
    copy = top / "ansible_collections" / "sesame" / "portknock"
    shutil.rmtree(top, ignore_errors=True)
    for file in project_files():
        target = copy / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, target, follow_symlinks=False)
    # ansible-test asks git for the files.
    subprocess.run(["git", "-C", str(copy), "init", "-q"], check=True)
    return copy


def link_collection() -> Path:
    """Give the tree the names by which Ansible finds a collection; return the folder for ANSIBLE_COLLECTIONS_PATH."""
    link = ROOT / ".build" / "ansible_collections" / "sesame" / "portknock"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("../../..")
    return ROOT / ".build"
