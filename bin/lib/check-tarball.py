# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a built collection: what is in the tarball, and that an installed copy of it works.

Usage: check-tarball.py TARBALL, run in the working tree with Ansible's commands on PATH.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"changelogs", "docs", "meta", "playbooks", "plugins", "roles"}
FILES = {"CHANGELOG.rst", "CONTRIBUTING.md", "LICENSE", "README.md"}
MADE_BY_THE_BUILD = {"FILES.json", "MANIFEST.json"}
NOT_SHIPPED = {"changelogs/fragments/.keep"}


def known_to_git():
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return {name for name in os.fsdecode(names).split("\0") if name and (ROOT / name).exists()}


def belongs(name):
    top = name.split("/")[0]
    return name in FILES or (
        top in FOLDERS and name not in NOT_SHIPPED and not name.startswith("changelogs/fragments/")
    )


def problems_of_contents(tarball):
    """Compare the tarball's files with the files of the project that should be in it."""
    with tarfile.open(tarball) as archive:
        shipped = {member.name for member in archive.getmembers() if not member.isdir()}
    expected = {name for name in known_to_git() if belongs(name)} | MADE_BY_THE_BUILD
    for name in sorted(shipped - expected):
        yield f"does not belong in the tarball: {name}"
    for name in sorted(expected - shipped):
        yield f"is missing in the tarball: {name}"


def run(folder, *command):
    """Run a command that sees no other copy of the collection than the installed one."""
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(folder), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def documented(folder, kind):
    names = json.loads(run(folder, "ansible-doc", "--json", "--list", "-t", kind, "sesame.portknock"))
    for name in names:
        run(folder, "ansible-doc", "-t", kind, name)
    return set(names)


def problems_of_the_copy(folder):
    """Ask Ansible for every plugin and role that the tree has, load every Python file."""
    collection = folder / "ansible_collections/sesame/portknock"
    for kind in ("module", "filter", "connection"):
        tree = ROOT / "plugins" / (kind + ("s" if kind == "module" else ""))
        wanted = {f"sesame.portknock.{path.stem}" for path in tree.glob("[a-z]*.py")}
        for name in sorted(wanted - (documented(folder, kind) if wanted else set())):
            yield f"ansible-doc does not know the {kind} {name}"
    if "sesame.portknock.portknock" not in documented(folder, "role"):
        yield "ansible-doc does not know the role sesame.portknock.portknock"
    for path in sorted((collection / "plugins").rglob("*.py")):
        name = ".".join(path.relative_to(folder).with_suffix("").parts)
        run(folder, sys.executable, "-c", f"import sys; sys.path[:0] = ['.']; import {name}")
    for path in sorted((collection / "playbooks").glob("*.yml")):
        run(folder, "ansible-playbook", "--syntax-check", f"sesame.portknock.{path.stem}")


def main():
    tarball = Path(sys.argv[1]).resolve()
    problems = list(problems_of_contents(tarball))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(run(folder, "ansible-galaxy", "collection", "install", str(tarball), "-p", str(folder)))
        problems += problems_of_the_copy(folder)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
