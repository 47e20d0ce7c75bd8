# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""This host, behind seams that a test can replace: commands, files, who is connected, systemd."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._keep import UNIT_NAME
from ansible_collections.sesame.portknock.plugins.module_utils._spec import IPV4, IPV6

_LISTS = "/proc/net/xt_recent"
_WANTED = "/etc/systemd/system/multi-user.target.wants/" + UNIT_NAME
_LOCK = "/run/portknock.lock"
_SBIN = ["/usr/sbin", "/sbin", "/usr/local/sbin"]


class Host:
    """Does to the host what main() decided; every method is one small thing."""

    def __init__(self, module):
        """Take the AnsibleModule, for its run_command and get_bin_path."""
        self._module = module

    def run(self, words, data):
        """Run a command without a shell, in the C locale; return (exit code, output, errors)."""
        return self._module.run_command(
            words, data=data or None, binary_data=True, environ_update={"LC_ALL": "C", "LANG": "C"}
        )

    def find(self, name):
        """Return the path of a command, or None."""
        return self._module.get_bin_path(name, required=False, opt_dirs=_SBIN)

    def read(self, path):
        """Return a file's text, '' where there is none; bytes that are no UTF-8 become surrogate escapes."""
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
                return handle.read()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return ""
            raise HostError("{0} cannot be read: {1}.".format(path, error.strerror)) from error

    def mode(self, path):
        """Return the permission bits of a file, or None where there is none."""
        try:
            return stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            return None

    @contextlib.contextmanager
    def lock(self, seconds=60):
        """Hold the lock that keeps two runs on one host apart.

        :raises HostError: if another run holds it for longer than that.
        """
        with open(_LOCK, "a") as handle:
            os.chmod(_LOCK, 0o600)
            for _attempt in range(seconds * 10):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                raise HostError(
                    "another run of knock_ruleset has held {0} for {1} s. Wait for it, or end it.".format(
                        _LOCK, seconds
                    )
                )
            yield

    def families(self):
        """Return the families that the kernel of this host speaks."""
        return (IPV4, IPV6) if os.path.exists("/proc/net/if_inet6") else (IPV4,)

    def ssh_connection(self):
        """Return the words of SSH_CONNECTION of the session this runs in, through sudo and su, or None."""
        pid, seen = os.getpid(), 0
        while pid > 1 and seen < 32:
            environment = self._environment(pid)
            if environment.get("SSH_CONNECTION"):
                return environment["SSH_CONNECTION"].split()
            pid, seen = self._parent(pid), seen + 1
        return None

    def _environment(self, pid):
        try:
            return dict(
                item.split("=", 1) for item in self.read("/proc/{0}/environ".format(pid)).split("\0") if "=" in item
            )
        except HostError:
            return {}

    def _parent(self, pid):
        found = re.search(r"^PPid:\s*(\d+)", self.read("/proc/{0}/status".format(pid)), re.M)
        return int(found.group(1)) if found else 0

    def replace_files(self, files):
        """Write or remove files: all are staged and synced first, then moved into place one by one.

        :param files: path to (text or None, mode).
        :raises HostError: if one cannot be staged (then none was touched) or moved.
        """
        staged = []
        try:
            for path, (text, mode) in sorted(files.items()):
                if text is not None:
                    staged.append((self._stage(path, text, mode), path, mode))
        except OSError as error:
            for temporary, _path, _mode in staged:
                os.unlink(temporary)
            raise HostError("{0} cannot be written: {1}. Nothing was kept.".format(path, error.strerror)) from error
        for temporary, path, _mode in staged:
            self._move(temporary, path)
        for path in sorted(path for path, (text, _mode) in files.items() if text is None):
            self._remove(path)

    def _move(self, temporary, path):
        try:
            os.rename(temporary, os.path.realpath(path))
        except OSError as error:
            raise HostError("{0} cannot be replaced: {1}.".format(path, error.strerror)) from error
        self._module.set_default_selinux_context(path, False)

    def _stage(self, path, text, mode):
        directory = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(directory):
            os.makedirs(directory, 0o700 if directory.endswith("/portknock") else 0o755)
        handle, temporary = tempfile.mkstemp(prefix=".portknock-", dir=directory)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text.encode("utf-8", "surrogateescape"))
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, mode)
        except OSError:
            os.unlink(temporary)
            raise
        return temporary

    def _remove(self, path):
        try:
            os.unlink(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise HostError("{0} cannot be removed: {1}.".format(path, error.strerror)) from error

    def remove_directory(self, path):
        """Remove a directory of ours and what is left in it."""
        shutil.rmtree(path, ignore_errors=True)

    def chmod(self, path, mode):
        """Set the permission bits of a file that is there."""
        if self.mode(path) is not None:
            os.chmod(path, mode)

    def lists(self):
        """Return name to text of the kernel's lists that are ours."""
        try:
            names = sorted(name for name in os.listdir(_LISTS) if re.match(r"pk[46][._]", name))
        except OSError:
            return {}
        return {name: self.read(os.path.join(_LISTS, name)) for name in names}

    def hide_lists(self):
        """Make the proc files of our lists readable for root alone: they say who has knocked."""
        for name in self.lists():
            os.chmod(os.path.join(_LISTS, name), 0o600)

    def list_size(self):
        """Return how many sources the running kernel remembers per list, or None where it does not say."""
        text = self.read("/sys/module/xt_recent/parameters/ip_list_tot").strip()
        return int(text) if text.isdigit() else None

    def recent_is_module(self):
        """Tell whether this kernel has xt_recent as a module that modprobe.d can set up."""
        modules = "/lib/modules/{0}".format(os.uname().release)
        return os.path.isdir(modules + "/kernel") and "/xt_recent.ko" not in self.read(modules + "/modules.builtin")

    def uptime(self):
        """Return the seconds since boot, as the kernel's tick counter counts them."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def unit_ready(self):
        """Tell whether our unit is enabled and, where systemd runs, was started and is well."""
        if not os.path.islink(_WANTED):
            return False
        return (
            not self._systemd_runs()
            or self.run([self.find("systemctl"), "is-active", "--quiet", UNIT_NAME], "")[0] == 0
        )

    def enable_unit(self):
        """Enable our unit and, where systemd runs, run it."""
        self._systemctl("daemon-reload", running=True)
        self._systemctl("enable", UNIT_NAME)
        self._systemctl("restart", UNIT_NAME, running=True)

    def disable_unit(self):
        """Stop and disable our unit, before its file goes."""
        if os.path.lexists(_WANTED):
            self._systemctl("stop", UNIT_NAME, running=True)
            self._systemctl("disable", UNIT_NAME)
            self._systemctl("reset-failed", UNIT_NAME, running=True, must=False)

    def reload_units(self):
        """Make systemd forget a unit whose file went."""
        self._systemctl("daemon-reload", running=True)

    def _systemd_runs(self):
        return os.path.isdir("/run/systemd/system") and bool(self.find("systemctl"))

    def _systemctl(self, verb, *units, **kwargs):
        if not self.find("systemctl") or (kwargs.get("running") and not self._systemd_runs()):
            return
        code, _out, err = self.run([self.find("systemctl"), verb] + list(units), "")
        if code and kwargs.get("must", True):
            raise HostError("systemctl {0} {1} failed: {2}".format(verb, " ".join(units), err.strip()))


__all__ = ("Host",)
