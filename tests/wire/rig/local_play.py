# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real ansible-playbook without a network: for what is decided before a host is touched."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from rig.controller import playbook_of
from rig.target import ROOT, clean_environment


def play_locally(core: str, folder: Path, plays: list[dict[str, Any]], *words: str) -> subprocess.CompletedProcess[str]:
    """Run plays in check mode over the connection ``local``, with more arguments, and return the finished process."""
    (folder / "play.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    return run_locally(core, folder, "--check", *words, "play.yml")


def run_locally(core: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in a folder, over the connection ``local``."""
    return subprocess.run(
        [playbook_of(core), "-c", "local", *words],
        capture_output=True, text=True, timeout=600, check=False, cwd=folder,
        env=clean_environment(
            HOME=str(folder), LC_ALL="C.UTF-8", ANSIBLE_NOCOLOR="1", ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build"),
            ANSIBLE_LOCALHOST_WARNING="false", PATH=os.environ["PATH"],
        ),
    )  # fmt: skip
