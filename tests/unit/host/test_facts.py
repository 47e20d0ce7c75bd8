# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a host before anything is installed on it: what is read from which command and file."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host import facts as module
from ansible_collections.sesame.portknock.plugins.module_utils._host.distributions import OsRelease, parse_os_release
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import (
    MISSING,
    PRESENT,
    UNITS,
    UNKNOWN,
    Machine,
    read_facts,
)

KERNEL = "6.1.0-1-amd64"
MODULES = "/lib/modules/" + KERNEL
DEP = (
    "kernel/net/netfilter/xt_recent.ko.xz: kernel/net/netfilter/x_tables.ko.xz\n"
    "kernel/net/netfilter/xt_conntrack.ko: kernel/net/netfilter/x_tables.ko\n"
    "kernel/net/netfilter/nf_tables.ko:\n"
    "kernel/net/netfilter/nft_compat.ko: kernel/net/netfilter/nf_tables.ko\n"
)
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'


class FakeMachine:
    """A host as two dictionaries, that knows what it was asked to run."""

    def __init__(self, files=(), outputs=(), root=True):
        self.files, self.outputs, self.root, self.ran = dict(files), dict(outputs), root, []

    def has_command(self, name):
        return name in self.outputs

    def output(self, name, *_words):
        if name in self.outputs:
            self.ran.append(name)
        return self.outputs.get(name, "")

    def read(self, path):
        return self.files.get(path) or ""

    def exists(self, path):
        return path in self.files

    def kernel(self):
        return KERNEL

    def is_root(self):
        return self.root


def with_systemd(**states):
    """A host on which systemd runs, with the state of some units, as (load state, active state, unit file state)."""
    blocks = []
    for name in UNITS:
        found = states.get(name.replace("-", "_"), ("not-found", "inactive", ""))
        blocks.append("LoadState={}\nActiveState={}\nUnitFileState={}".format(*found))
    return FakeMachine({"/run/systemd/system": ""}, {"systemctl": "\n\n".join(blocks) + "\n"})


def test_an_empty_host():
    found = read_facts(FakeMachine(root=False))
    assert found.release == OsRelease("", "", (), "This distribution")
    assert not any([found.root, found.systemd, found.ipv6, found.ufw_on])
    assert found.kernel_modules == UNKNOWN
    assert found.provided == frozenset()


# The distribution


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEBIAN, OsRelease("debian", "12", (), "Debian GNU/Linux 12 (bookworm)")),
        ("ID='rocky'\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=9.3\n",
         OsRelease("rocky", "9.3", ("rhel", "centos", "fedora"), "rocky 9.3")),
        ("ID=arch\n# VERSION_ID=1\n", OsRelease("arch", "", (), "arch")),
        ('ID=odd\nPRETTY_NAME="with \\"quotes\\""\n', OsRelease("odd", "", (), 'with "quotes"')),
        ('ID=odd\nPRETTY_NAME="not closed\n', OsRelease("odd", "", (), "not closed")),
        ('ID=odd\nPRETTY_NAME=""\n', OsRelease("odd", "", (), "odd")),
    ],
)  # fmt: skip
def test_os_release(text, expected):
    assert parse_os_release(text) == expected


def test_the_distributions_own_os_release_where_the_administrator_has_none():
    assert read_facts(FakeMachine({"/usr/lib/os-release": DEBIAN})).release.id == "debian"
    both = {"/usr/lib/os-release": DEBIAN, "/etc/os-release": "ID=mine\n"}
    assert read_facts(FakeMachine(both)).release.id == "mine"


# Services


@pytest.mark.parametrize(
    ("state", "present", "active", "enabled"),
    [
        (("loaded", "active", "enabled"), True, True, True),
        (("loaded", "activating", "disabled"), True, True, False),
        (("loaded", "reloading", "static"), True, True, False),
        (("loaded", "deactivating", "enabled-runtime"), True, False, True),
        (("loaded", "inactive", "disabled"), True, False, False),
        (("loaded", "failed", "enabled"), True, False, True),
        (("masked", "inactive", "masked"), True, False, False),
        (("not-found", "inactive", ""), False, False, False),
    ],
)
def test_units(state, present, active, enabled):
    units = read_facts(with_systemd(nftables=state, netfilter_persistent=("loaded", "active", "enabled"))).units
    others = {"netfilter-persistent"}
    assert units.present == others | ({"nftables"} if present else set())
    assert units.active == others | ({"nftables"} if active else set())
    assert units.enabled == others | ({"nftables"} if enabled else set())


def test_without_systemd_the_files_of_units_are_looked_at():
    files = {"/usr/lib/systemd/system/iptables.service": "", "/etc/systemd/system/knockd.service": ""}
    files["/lib/systemd/system/firewalld.service"] = ""
    machine = FakeMachine(files, {"systemctl": "LoadState=loaded\nActiveState=active\n"})
    found = read_facts(machine)
    assert found.units == (frozenset(["iptables", "knockd", "firewalld"]), frozenset(), frozenset())
    assert "iptables.service" in found.provided
    assert "systemctl" not in machine.ran


# Commands, and other firewalls


def test_commands():
    files = {"/usr/share/netfilter-persistent/plugins.d/15-ip4tables": ""}
    found = read_facts(FakeMachine(files, {"iptables": "", "apt-get": "", "telnet": ""}))
    assert found.commands == {"iptables", "apt-get", "iptables-persistent"}


@pytest.mark.parametrize(
    ("conf", "installed", "expected"),
    [
        ("ENABLED=yes\n", True, True),
        ("# comment\nenabled=YES\n", True, True),
        ("ENABLED=no\n", True, False),
        ("#ENABLED=yes\n", True, False),
        ("", True, False),
        # Its configuration stays where the package was removed.
        ("ENABLED=yes\n", False, False),
    ],
)
def test_ufw_is_on_where_its_configuration_says_so(conf, installed, expected):
    found = read_facts(FakeMachine({"/etc/ufw/ufw.conf": conf}, {"ufw": ""} if installed else {}))
    assert found.ufw_on == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("installed iptables-persistent, netfilter-persistent \n", True),
        ("installed  iptables-persistent\n", True),
        ("installed  \n", False),
        ("config-files iptables-persistent\n", False),
        ("", False),
    ],
)
def test_ufw_that_cannot_be_beside_iptables_persistent(text, expected):
    assert read_facts(FakeMachine({}, {"dpkg-query": text})).ufw_excludes_persistent == expected


# The kernel


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, UNKNOWN),
        ({"/modules.dep": DEP}, PRESENT),
        ({"/modules.dep": DEP.replace("xt_recent", "xt_other")}, MISSING),
        ({"/modules.dep": DEP.replace("nft_compat", "nft_other")}, MISSING),
        ({"/modules.dep": ""}, MISSING),
        ({"/modules.dep": DEP.replace("xt_recent", "xt_other"),
          "/modules.builtin": "kernel/net/netfilter/xt_recent.ko\n"}, PRESENT),
        ({"/modules.builtin": DEP}, UNKNOWN),
    ],
)  # fmt: skip
def test_kernel_modules(files, expected):
    machine = FakeMachine({MODULES + name: text for name, text in files.items()})
    assert read_facts(machine).kernel_modules == expected
    assert read_facts(machine).kernel == KERNEL


@pytest.mark.parametrize("there", [False, True])
def test_ipv6(there):
    assert read_facts(FakeMachine({"/proc/net/if_inet6": ""} if there else {})).ipv6 == there


# The real one


class FakeModule:
    """An AnsibleModule, as far as it is used."""

    def __init__(self, code=0):
        self.code, self.calls = code, []

    def get_bin_path(self, name, required, opt_dirs):
        assert not required
        assert "/usr/sbin" in opt_dirs
        return "/usr/sbin/" + name if name != "absent" else None

    def run_command(self, words, environ_update, **_options):
        self.calls.append((words, environ_update["LC_ALL"]))
        return self.code, "printed", "an error"


def test_machine_runs_commands_in_the_c_locale():
    made = FakeModule()
    assert Machine(made).output("iptables-save", "-c") == "printed"
    assert made.calls == [(["/usr/sbin/iptables-save", "-c"], "C")]


def test_machine_has_no_output_of_what_fails_or_is_not_there():
    made = FakeModule(code=1)
    assert Machine(made).output("iptables-save") == ""
    assert Machine(made).output("absent") == ""
    assert len(made.calls) == 1
    assert Machine(made).has_command("iptables-save")
    assert not Machine(made).has_command("absent")


def test_machine_reads_files(tmp_path):
    machine = Machine(FakeModule())
    path = tmp_path / "file"
    path.write_bytes(b"ID=\xff\n")
    assert machine.read(str(path)) == "ID=\udcff\n"
    assert machine.read(str(tmp_path)) == machine.read(str(tmp_path / "none")) == ""
    assert machine.exists(str(path))
    assert not machine.exists(str(tmp_path / "none"))
    assert machine.kernel() == module.os.uname().release
    assert machine.is_root() == (module.os.geteuid() == 0)
