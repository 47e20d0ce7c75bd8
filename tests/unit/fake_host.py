# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory, with the methods of _host.Host: two rulesets, some files, systemd that remembers."""

import copy

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from fake_iptables import FakeIptables, Refused

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'
EL = 'NAME="Rocky Linux"\nVERSION="9.4 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
TOOLS = tuple(family + tail for family in ("iptables", "ip6tables") for tail in ("", "-save", "-restore"))


class FakeHost:
    """Set the attributes to what the host is like; what was done to it is in ``done``."""

    def __init__(self, os_release=DEBIAN, files=None, v4="", v6=""):
        self.rules = {"iptables": FakeIptables(v4), "ip6tables": FakeIptables(v6)}
        self.tools = set(TOOLS) | {"systemctl"}
        self.files = {"/etc/os-release": (os_release, 0o644)}
        self.files.update(files or {})
        self.version = "iptables v1.8.9 (nf_tables)\n"
        self.other_backend, self.refuse, self.spell = {}, None, None
        self.speaks = ("ipv4", "ipv6")
        self.ssh, self.size, self.module = None, 4096, False
        self.unit, self.unit_refuses, self.disk_full = False, False, None
        self.frozen, self.done, self.commands = False, [], []

    def _change(self, *what):
        assert not self.frozen, "changed what was not to be changed: {0}".format(what)
        self.done.append(what)

    def state(self):
        """What must be as before after a failure."""
        return copy.deepcopy((self.rules["iptables"].save(), self.rules["ip6tables"].save(), self.files, self.unit))

    # What Iptables asks for

    def find(self, name):
        return "/usr/sbin/" + name if name in self.tools else None

    def run(self, words, data):
        self.commands.append(tuple(words))
        command = words[0].rsplit("/", 1)[1]
        assert command in self.tools, command
        if words[1:] == ["-V"]:
            return 0, self.version, ""
        if command in self.other_backend:
            return 0, self.other_backend[command], ""
        if command.endswith("-save"):
            text = self.rules[command[:-5]].save()
            return 0, self.spell(text) if self.spell else text, ""
        return self._restore(command, words[1:], data)

    def _restore(self, command, words, data):
        assert words[:3] == ["-w", "30", "--noflush"], words
        if self.refuse:
            answer = self.refuse(command, words, data)
            if answer:
                return answer
        test = "--test" in words
        if not test and "PORTKNOCK_PROBE" not in data:
            self._change("restore", command)
        try:
            self.rules[command[:-8]].restore(data, test=test)
        except Refused as error:
            return 2, "", str(error) + "\n"
        return 0, "", ""

    def read(self, path):
        text = self.files.get(path, ("", None))[0]
        if isinstance(text, Exception):
            raise text
        return text

    # The rest of Host

    def mode(self, path):
        return self.files[path][1] if path in self.files else None

    def families(self):
        return self.speaks

    def ssh_connection(self):
        return self.ssh.split() if self.ssh else None

    def replace_files(self, files):
        if self.disk_full and self.disk_full in files:
            raise HostError("{0} cannot be written: No space left on device. Nothing was kept.".format(self.disk_full))
        for path, (text, mode) in files.items():
            self._change("write" if text is not None else "remove", path)
            if text is None:
                self.files.pop(path, None)
            else:
                self.files[path] = (text, mode)

    def remove_directory(self, path):
        self._change("rmdir", path)
        self.files = {name: value for name, value in self.files.items() if not name.startswith(path + "/")}

    def chmod(self, path, mode):
        self._change("chmod", path)
        self.files[path] = (self.files[path][0], mode)

    def lists(self):
        return {}

    def hide_lists(self):
        self._change("hide_lists")

    def list_size(self):
        return self.size

    def recent_is_module(self):
        return self.module

    def uptime(self):
        return 5000.0

    def unit_ready(self):
        return self.unit

    def enable_unit(self):
        self._change("enable_unit")
        if self.unit_refuses:
            raise HostError("systemctl restart portknock.service failed: no")
        self.unit = True

    def disable_unit(self):
        if self.unit:
            self._change("disable_unit")
            self.unit = False

    def reload_units(self):
        self._change("reload_units")
