# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd's units and scripts as texts, and the scripts as a shell runs them."""

import ipaddress
import os
import re
import shutil
import subprocess

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import (
    ADDRESSES_SCRIPT,
    ADDRESSES_UNIT,
    PREFIX_SCRIPT,
    UPGRADE_UNIT,
    drop_in_text,
)
from hypothesis import given
from hypothesis import strategies as st
from knockd_specs import text_of

# Units


def test_nothing_of_the_package_counts():
    text = drop_in_text("/usr/sbin/knockd", "/etc/portknock/knockd.conf", "/usr/local/sbin/portknock-addresses")
    lines = text.splitlines()
    starts = [line for line in lines if line.startswith("ExecStart=")]
    assert starts == ["ExecStart=", "ExecStart=/usr/sbin/knockd -c /etc/portknock/knockd.conf $PORTKNOCK_INTERFACE"]
    assert lines.index("ExecStartPre=") < lines.index("ExecStartPre=/bin/sh /usr/local/sbin/portknock-addresses note")
    assert not re.search(r"KNOCKD|/etc/knockd\.conf|/etc/default|/etc/sysconfig", text)
    assert [line for line in lines if "EnvironmentFile" in line] == ["EnvironmentFile=-/run/portknock-knockd/interface"]
    assert {"Type=simple", "Restart=always", "NoNewPrivileges=yes", "StartLimitIntervalSec=0"} <= set(lines)
    assert lines.index("CapabilityBoundingSet=") < lines.index("CapabilityBoundingSet=CAP_NET_RAW")


def test_an_upgrade_starts_it_again():
    """The package's preinst stops it, and nothing of the package starts it."""
    wants = [line for line in drop_in_text("/usr/sbin/knockd", "/x", "/y").splitlines() if line.startswith("Wants=")]
    assert wants == ["Wants=portknock-addresses.service portknock-knockd.path"]
    assert {"PathChanged=/opt/knockd", "Unit=knockd.service"} <= set(UPGRADE_UNIT.format("/opt/knockd").splitlines())


def test_unconfirmed_nothing_watches_the_addresses():
    text = drop_in_text("/usr/sbin/knockd", "/run/portknock/knockd.conf", "")
    assert "portknock-addresses" not in text
    assert "ExecStartPre=\n" in text


def test_every_line_of_a_unit_is_one():
    texts = [drop_in_text("/usr/sbin/knockd", "/x", noted) for noted in ("", "/y")] + [ADDRESSES_UNIT.format("/y")]
    texts.append(UPGRADE_UNIT.format("/usr/sbin/knockd"))
    for text in texts:
        assert all(re.match(r"#|\[[A-Z][a-z]+\]$|[A-Z][A-Za-z]+=|$", line) for line in text.splitlines()), text
        assert text.endswith("\n")
        assert "{" not in text


# Scripts

SHELLS = ["sh", "bash"]


@pytest.fixture(params=["addresses", "prefix"])
def script(request, tmp_path):
    path = tmp_path / request.param
    path.write_text({"addresses": ADDRESSES_SCRIPT, "prefix": PREFIX_SCRIPT}[request.param])
    return str(path)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_parses(script, shell):
    subprocess.check_call([shell, "-n", script])


def test_a_script_passes_shellcheck(script):
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck on this machine")
    subprocess.check_call(["shellcheck", "--shell=sh", script])


@pytest.fixture(scope="module")
def prefix_script(tmp_path_factory):
    path = tmp_path_factory.mktemp("prefix") / "ipv6-prefix"
    path.write_text(PREFIX_SCRIPT)
    return str(path)


def network_of(shell, path, bits, address):
    return subprocess.check_output([shell, path, str(bits), address], universal_newlines=True)


GROUPS = st.lists(st.sampled_from([0, 0, 0, 1, 0xFF, 0x8000, 0xFFFF, 0xABCD]), min_size=8, max_size=8)


@pytest.mark.slow
@given(groups=GROUPS, bits=st.integers(64, 128), shell=st.sampled_from(SHELLS))
def test_the_network_of_an_address(prefix_script, groups, bits, shell):
    text = ":".join("{0:x}".format(group) for group in groups)
    address = ipaddress.IPv6Address(text)
    wanted = ipaddress.ip_network("{0}/{1}".format(address, bits), strict=False).network_address
    # As inet_ntop(3) writes it, with '::', and without.
    for written in (str(address), text):
        said = network_of(shell, prefix_script, bits, written)
        assert said.count("\n") == 1
        assert ipaddress.IPv6Address(said.strip()) == wanted


@pytest.mark.parametrize("address", ["::", "::1", "1::", "fe80::1", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::8"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_network_of_a_short_address(prefix_script, shell, address):
    for bits in range(64, 129):
        wanted = ipaddress.ip_network("{0}/{1}".format(address, bits), strict=False).network_address
        assert ipaddress.IPv6Address(network_of(shell, prefix_script, bits, address).strip()) == wanted


IP = """#!/bin/sh
case "$*" in
"-o address show dev eth0") cat "$SHOWN" ;;
"-o address show dev ens3") echo "3: ens3    inet 192.0.2.3/24 scope global ens3" ;;
"-o monitor address") cat "$CHANGES" ;;
"-4 -o route show default") cat "$ROUTES" ;;
"-6 -o route show default") ;;
*) exit 1 ;;
esac
"""
SHOWN = (
    "2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global dynamic eth0\\       valid_lft 80000sec preferred_lft 80000sec\n"
    "2: eth0    inet6 2001:db8::1/64 scope global \\       valid_lft forever preferred_lft forever\n"
)
PLACES = {
    "/etc/portknock/knockd.conf": "knockd.conf",
    "/run/portknock-knockd/addresses": "noted",
    "/run/portknock-knockd/interface": "option",
    "/sys/class/net": "net",
}
SECOND = "sleep 1 "


class Watched:
    """The script that looks after addresses, on a host whose ip, systemctl and interfaces are fakes."""

    def __init__(self, directory):
        self.directory = directory
        for name, text in (
            ("shown", SHOWN),
            ("changes", ""),
            ("asked", ""),
            ("routes", ""),
            ("knockd.conf", text_of()),
        ):
            self.write(name, text)
        self._program("ip", IP)
        self._program("systemctl", '#!/bin/sh\necho "$*" >> "$ASKED"\n')
        (directory / "net" / "eth0").mkdir(parents=True)
        text = ADDRESSES_SCRIPT.replace("PATH=", "PATH={0}:".format(directory), 1)
        for path, name in PLACES.items():
            assert path in text
            text = text.replace(path, str(directory / name))
        assert SECOND in text
        self.write("script", text.replace(SECOND, "sleep 0.05 "))

    def write(self, name, text):
        (self.directory / name).write_text(text)

    def read(self, name):
        return (self.directory / name).read_text()

    def _program(self, name, text):
        self.write(name, text)
        (self.directory / name).chmod(0o755)

    def run(self, word):
        names = {name.upper(): str(self.directory / name) for name in ("shown", "changes", "asked", "routes")}
        words = ["/bin/sh", str(self.directory / "script"), word]
        subprocess.run(words, env=dict(os.environ, **names), check=True, timeout=200)

    def restarts(self):
        return self.read("asked").splitlines()


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def test_addresses_are_noted(watched):
    watched.run("note")
    assert watched.read("noted") == "eth0\ninet 192.0.2.1/24\ninet6 2001:db8::1/64\n"
    assert watched.read("option") == ""


def test_where_the_interface_is_gone_it_is_that_of_the_default_route(watched):
    (watched.directory / "net" / "eth0").rename(watched.directory / "net" / "ens3")
    watched.write("routes", "default via 192.0.2.254 dev ens3 proto dhcp src 192.0.2.3 metric 100 \n")
    watched.run("note")
    assert watched.read("noted") == "ens3\ninet 192.0.2.3/24\n"
    assert watched.read("option") == "PORTKNOCK_INTERFACE=-i ens3\n"
    watched.run("watch")
    assert watched.restarts() == []
    (watched.directory / "net" / "ens3").rename(watched.directory / "net" / "eth0")
    watched.run("watch")
    assert watched.restarts() == [RESTART], "it came back"


def test_without_any_interface_it_starts_all_the_same(watched):
    (watched.directory / "net" / "eth0").rmdir()
    watched.run("note")
    assert watched.read("option") == ""


RESTART = "--no-block try-restart knockd.service"


@pytest.mark.parametrize(
    ("now", "restarts"),
    [
        (SHOWN, []),
        (SHOWN.replace("80000sec", "79999sec"), []),
        ("".join(reversed(SHOWN.splitlines(True))), []),
        (SHOWN.replace("192.0.2.1/24", "192.0.2.2/24"), [RESTART]),
        (SHOWN.splitlines(True)[0], [RESTART]),
        (SHOWN + "2: eth0    inet 192.0.2.9/32 scope global eth0\n", [RESTART]),
        ("", [RESTART]),
    ],
)
def test_knockd_is_restarted_when_they_differ(watched, now, restarts):
    """The look a second after the watch began is enough for that; then the monitor, which here is at its end."""
    watched.run("note")
    watched.write("shown", now)
    watched.run("watch")
    assert watched.restarts() == restarts


def test_every_change_is_looked_at(watched):
    watched.run("note")
    watched.write("shown", SHOWN.replace("192.0.2.1", "192.0.2.2"))
    watched.write("changes", "2: eth0    inet 192.0.2.2/24 scope global eth0\nDeleted 2: eth0    inet 192.0.2.1/24\n")
    watched.run("watch")
    assert watched.restarts() == [RESTART] * 3


def test_a_knockd_whose_addresses_nobody_noted_is_left_alone(watched):
    watched.run("watch")
    assert watched.restarts() == []
