# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs commands, with Ansible's own means in a module and without them in a program of the host."""

import os
import subprocess
from typing import Any, Dict, List, Optional, Sequence, Tuple

SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_PLACES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
_LOCALE = {"LC_ALL": "C", "LANG": "C"}

Result = Tuple[int, str, str]
"""Exit code, output, errors."""


class Command:
    """The commands of a host."""

    def __init__(self, module: Any) -> None:
        """Take an AnsibleModule, or a PlainRunner: run_command, get_bin_path and set_default_selinux_context are used."""
        self._module = module

    def run(self, words: Sequence[str], data: str = "") -> Result:
        """Run a command without a shell, in the C locale.

        :param data: text for its standard input.
        """
        return self._module.run_command(list(words), data=data or None, binary_data=True, environ_update=dict(_LOCALE))

    def find(self, name: str) -> Optional[str]:
        """Return the path of a command, or None."""
        return self._module.get_bin_path(name, required=False, opt_dirs=list(SBIN))


class PlainRunner:
    """What Command and Filesystem need of an AnsibleModule, without Ansible."""

    def run_command(
        self,
        words: List[str],
        data: Optional[str] = None,
        environ_update: Optional[Dict[str, str]] = None,
        **_options: Any,
    ) -> Result:
        """Run a command; return exit code, output and errors."""
        try:
            # There is no AnsibleModule here.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=dict(os.environ, **(environ_update or {})),
            )  # fmt: skip
        except OSError as error:
            return 127, "", str(error)
        out, err = process.communicate((data or "").encode("utf-8", "surrogateescape"))
        return process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "replace")

    def get_bin_path(self, name: str, opt_dirs: Optional[List[str]] = None, **_options: Any) -> Optional[str]:
        """Return the path of a command, or None; the order is that of AnsibleModule."""
        for place in list(opt_dirs or []) + os.environ.get("PATH", "").split(":") + list(_PLACES):
            path = os.path.join(place, name)
            if place and os.access(path, os.X_OK) and not os.path.isdir(path):
                return path
        return None

    def set_default_selinux_context(self, path: str, changed: bool) -> bool:
        """Give a file the label that its place has."""
        restorecon = self.get_bin_path("restorecon")
        if restorecon and os.path.isdir("/sys/fs/selinux"):
            self.run_command([restorecon, path])
        return changed


__all__ = ("Command", "PlainRunner", "Result")
