# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""This host, behind seams that a test can replace: commands, files, who is connected, systemd."""

import contextlib
import errno
import fcntl
import glob
import os
import re
import shutil
import stat
import tempfile
import time

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import UNIT_NAME
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6

STAGED = ".portknock-"
"""How the names of staged files begin."""
_LISTS = "/proc/net/xt_recent"
_WANTED = "/etc/systemd/system/multi-user.target.wants/" + UNIT_NAME
_LOCK = "/run/portknock.lock"
_CLOCK_BOOTTIME = 7
"""CLOCK_BOOTTIME of clock_gettime(2); Python has no name for it before 3.7."""
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
    def lock(self, seconds=30):
        """Hold the lock that keeps two runs on one host apart.

        :param seconds: how long to wait for another run that holds it.
        :raises HostError: if it is held for longer than that, or cannot be taken at all.
        """
        with self._lock_file() as handle:
            self._take(handle, time.monotonic() + seconds, seconds)
            yield

    def _lock_file(self):
        try:
            handle = open(_LOCK, "a")  # noqa: SIM115 - a lock is held as long as it is open
            os.chmod(_LOCK, 0o600)
        except OSError as error:
            return self._lock_file_to_read(error)
        return handle

    def _lock_file_to_read(self, problem):
        """Open the lock where /run has become read-only: enough to hold it, and what is pending must end even so."""
        try:
            return open(_LOCK)
        except OSError as error:
            raise HostError(
                "{0} cannot be written: {1}. A change without a lock could meet another one, so nothing is done. "
                "Make /run writable.".format(_LOCK, problem.strerror)
            ) from error

    def lock_is_held(self):
        """Tell whether somebody holds the lock now."""
        with self._lock_file() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _take(self, handle, end, seconds):
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() >= end:
                    raise HostError(
                        "another run of knock_ruleset has held {0} for {1} s. Wait for it, or end it.".format(
                            _LOCK, seconds
                        )
                    ) from None
            time.sleep(0.05)

    def families(self):
        """Return the families that the kernel of this host speaks."""
        return (IPV4, IPV6) if os.path.exists("/proc/net/if_inet6") else (IPV4,)

    def ssh_connection(self):
        """Return the words of SSH_CONNECTION of the session this runs in, through sudo and su, or None."""
        return self.session()[0]

    def session(self):
        """Return the ssh session this runs in, through sudo and su.

        :returns: the words of SSH_CONNECTION (client address, its port, server address, its port) or None, and when
            the process that serves the connection began, in seconds since boot, or None.
        """
        pid, words, server = os.getpid(), None, 0
        for _generation in range(32):
            if pid <= 1:
                break
            found, parent = self._environment(pid).get("SSH_CONNECTION", "").split(), self._parent(pid)
            # An sshd that was started by hand has the SSH_CONNECTION of whoever did that: the nearest one counts.
            if words and found != words:
                break
            if found:
                words, server = found, parent
            pid = parent
        return (words, self.process_start(server)) if words else (None, None)

    def process_start(self, pid):
        """Return when a process began, in seconds since boot (field 22 of /proc/PID/stat), or None if there is none."""
        try:
            fields = self.read("/proc/{0}/stat".format(pid)).rpartition(")")[2].split()
        except HostError:
            return None
        return int(fields[19]) / os.sysconf("SC_CLK_TCK") if len(fields) > 19 else None

    def since_boot(self):
        """Return the seconds since boot, suspend included, the clock that process_start uses."""
        return time.clock_gettime(_CLOCK_BOOTTIME)

    def boot(self):
        """Return what tells this boot from others, of a container's own as well as of the machine's."""
        return "{0} {1}".format(self.read("/proc/sys/kernel/random/boot_id").strip(), self.process_start(1))

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
        self.settle(self.stage(files), [path for path, (text, _mode) in files.items() if text is None])

    def stage(self, files):
        """Write and sync files beside the places where they belong.

        :param files: path to (text or None, mode).
        :returns: list of [temporary path, path].
        :raises HostError: if one cannot be written; then none is left.
        """
        staged = []
        try:
            for path, (text, mode) in sorted(files.items()):
                if text is not None:
                    staged.append([self._stage(path, text, mode), path])
        except OSError as error:
            self.discard(staged)
            raise HostError("{0} cannot be written: {1}. Nothing was kept.".format(path, error.strerror)) from error
        return staged

    def settle(self, staged, gone=()):
        """Move staged files into their places, and remove those that are to go; what was done already is passed over.

        :raises HostError: if that cannot be done.
        """
        for temporary, path in staged:
            if os.path.lexists(temporary):
                self._move(temporary, path)
        for path in sorted(gone):
            self._remove(path)
        for directory in {
            os.path.dirname(os.path.realpath(path)) for path in [path for _t, path in staged] + list(gone)
        }:
            self._sync(directory)

    def discard(self, staged):
        """Remove staged files that were not moved."""
        for temporary, _path in staged:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def tidy(self, directories):
        """Remove staged files that a run which died left behind; nothing may be pending."""
        for directory in directories:
            for path in glob.glob(os.path.join(os.path.realpath(directory), STAGED + "*")):
                self.discard([[path, ""]])

    def replace_bytes(self, path, data):
        """Write a file of bytes, for root alone."""
        try:
            self._move(self._stage(path, data, 0o600), path)
        except OSError as error:
            raise HostError("{0} cannot be written: {1}.".format(path, error.strerror)) from error

    def _move(self, temporary, path):
        try:
            os.rename(temporary, os.path.realpath(path))
        except OSError as error:
            raise HostError("{0} cannot be replaced: {1}.".format(path, error.strerror)) from error
        self._module.set_default_selinux_context(path, False)

    def _sync(self, directory):
        """Make renames last: they are only in memory until their directory is synced."""
        with contextlib.suppress(OSError):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _stage(self, path, text, mode):
        directory = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(directory):
            os.makedirs(directory, 0o700 if "/portknock" in directory else 0o755)
        handle, temporary = tempfile.mkstemp(prefix=STAGED, dir=directory)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
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

    def forget(self, name, address):
        """Take an address off one of our lists, if it is on it."""
        with contextlib.suppress(OSError), open(os.path.join(_LISTS, name), "w", encoding="ascii") as stream:
            stream.write("-{0}\n".format(address))

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

    def monotonic(self):
        """Return CLOCK_MONOTONIC, in seconds: nobody can set it, and all processes of a boot share it."""
        return time.monotonic()

    def sleep(self, seconds):
        """Wait."""
        time.sleep(seconds)

    def uptime(self):
        """Return the seconds since boot, as the kernel's tick counter counts them."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def unit_ready(self):
        """Tell whether our unit is enabled and, where systemd runs, was started and is well."""
        if not os.path.islink(_WANTED):
            return False
        return (
            not self.systemd_runs() or self.run([self.find("systemctl"), "is-active", "--quiet", UNIT_NAME], "")[0] == 0
        )

    def unit_enabled(self):
        """Tell whether our unit is enabled."""
        return os.path.lexists(_WANTED)

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

    def systemd_runs(self):
        """Tell whether systemd is what runs services here."""
        return os.path.isdir("/run/systemd/system") and bool(self.find("systemctl"))

    def systemctl(self, verb, *units):
        """Run systemctl and return its exit code; what it says is of no interest."""
        return self.run([self.find("systemctl"), verb] + list(units), "")[0]

    def service(self, verb, *units, **kwargs):
        """Run systemctl where systemd runs.

        :param must: whether it has to succeed.
        :raises HostError: with what it said.
        """
        self._systemctl(verb, *units, running=True, **kwargs)

    def is_enabled(self, unit):
        """Tell whether a unit is started at boot."""
        return bool(glob.glob("/etc/systemd/system/*.wants/" + unit))

    def enable(self, unit):
        """Have a unit started at boot.

        Not with "systemctl enable": that changes the links of a service's old init script as well, for good.
        """
        self.service("add-wants", "multi-user.target", unit)

    def disable(self, unit):
        """Have a unit no longer started at boot."""
        for link in glob.glob("/etc/systemd/system/*.wants/" + unit):
            self._remove(link)

    def running(self, unit):
        """Return the main process of a unit that runs or is about to, 0 where that is not known, None where it does not."""
        if not self.systemd_runs():
            return None
        words = [self.find("systemctl"), "show", "-p", "ActiveState", "-p", "MainPID", unit]
        facts = dict(line.split("=", 1) for line in self.run(words, "")[1].splitlines() if "=" in line)
        if facts.get("ActiveState") not in ("active", "activating", "reloading"):
            return None
        return int(facts.get("MainPID") or 0)

    def captures_packets(self, pid):
        """Tell whether a process has a socket that captures packets (packet(7))."""
        if not pid:
            return False
        directory = "/proc/{0}/fd".format(pid)
        try:
            links = {os.readlink(os.path.join(directory, name)) for name in os.listdir(directory)}
        except OSError:
            return False
        lines = self.read("/proc/{0}/net/packet".format(pid)).splitlines()[1:]
        return any("socket:[{0}]".format(line.split()[-1]) in links for line in lines)

    def words_of(self, pid):
        """Return the words of a process's command line."""
        return self.read("/proc/{0}/cmdline".format(pid)).split("\0")

    def interfaces(self):
        """Return the names of the network interfaces."""
        return sorted(os.listdir("/sys/class/net"))

    def addresses(self, interface):
        """Return the IP addresses of an interface, as texts."""
        text = self.run([self.find("ip"), "-o", "address", "show", "dev", interface], "")[1]
        return {words[3].split("/", 1)[0] for words in map(str.split, text.splitlines()) if len(words) > 3}

    def remove_empty(self, directory):
        """Remove a directory if nothing is in it."""
        with contextlib.suppress(OSError):
            os.rmdir(directory)

    def _systemctl(self, verb, *units, **kwargs):
        if not self.find("systemctl") or (kwargs.get("running") and not self.systemd_runs()):
            return
        code, _out, err = self.run([self.find("systemctl"), verb] + list(units), "")
        if code and kwargs.get("must", True):
            raise HostError("systemctl {0} {1} failed: {2}".format(verb, " ".join(units), err.strip()))


__all__ = ("Host",)
