# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which interface knockd listens on, from the routes of a host."""

import os

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import (
    config_text,
    interface_of,
    is_edited,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.interface import (
    choose_interface,
    default_interfaces,
)
from fake_kernel import ROUTE, ROUTE6
from hypothesis import example, given
from hypothesis import strategies as st
from knockd_model import Knockd
from knockd_specs import BOTH, HERE, spec_of

# Which interface

HEAD = ROUTE.splitlines()[0] + "\n"


def route(interface, destination="00000000", flags="0003", metric=0, mask="00000000"):
    return "\t".join([interface, destination, "010200C0", flags, "0", "0", str(metric), mask, "0", "0", "0"]) + "\n"


def route6(interface, destination="0" * 32, bits="00", flags=0x3, metric=1024):
    words = [destination, bits, "0" * 32, "00", "fe80" + "0" * 24 + "fffe", "{0:08x}".format(metric)]
    return " ".join(words + ["00000001", "00000000", "{0:08x}".format(flags), interface.rjust(8)]) + "\n"


NONE6 = route6("lo", flags=0x200200, metric=0xFFFFFFFF)
DEFAULT_ROUTES = [
    ("as on a plain host", ROUTE, ROUTE6, {"ipv4": "eth0", "ipv6": "eth0"}),
    ("none at all", "", "", {}),
    ("no route of the kind", HEAD + route("eth0", "000200C0", mask="00FFFFFF"), NONE6, {}),
    ("the kernel's own reject route", HEAD, NONE6, {}),
    ("unreachable by hand", HEAD, route6("eth0", flags=0x200), {}),
    ("unreachable, and a real one", HEAD, NONE6 + route6("eth1"), {"ipv6": "eth1"}),
    ("two, by their metric", HEAD + route("wlan0", metric=600) + route("eth0", metric=100), "", {"ipv4": "eth0"}),
    ("two of IPv6", "", route6("wlan0", metric=600) + route6("eth0", metric=100), {"ipv6": "eth0"}),
    ("a VPN's two halves are no default", HEAD + route("tun0", mask="00000080") + route("eth0"), "", {"ipv4": "eth0"}),
    ("one that is down", HEAD + route("eth1", flags="0002") + route("eth0", metric=5), "", {"ipv4": "eth0"}),
    ("reject route of IPv4", HEAD + route("*", flags="0200"), "", {}),
    ("a network", "", route6("eth0", destination="2001" + "0" * 28, bits="20"), {}),
    ("different ones", HEAD + route("eth0"), route6("eth1"), {"ipv4": "eth0", "ipv6": "eth1"}),
    ("cut short", "Iface\n\neth0\t0000\n", "0000 00\n\n", {}),
]


@pytest.mark.parametrize(
    ("v4", "v6", "wanted"), [item[1:] for item in DEFAULT_ROUTES], ids=[item[0] for item in DEFAULT_ROUTES]
)
def test_default_interfaces(v4, v6, wanted):
    assert default_interfaces(v4, v6) == wanted


def test_default_interfaces_of_this_machine():
    """As the kernel of whoever runs this writes them."""
    texts = []
    for path in ("/proc/net/route", "/proc/net/ipv6_route"):
        texts.append(open(path).read() if os.path.exists(path) else "")  # noqa: SIM115
    found = default_interfaces(*texts)
    assert set(found) <= set(BOTH)
    assert set(found.values()) <= set(os.listdir("/sys/class/net"))


KNOWN = ["eth0", "eth1", "lo"]
CHOICES = [
    ("", {"ipv4": "eth0", "ipv6": "eth0"}, BOTH, "eth0"),
    ("", {"ipv4": "eth0"}, BOTH, "eth0"),
    ("", {"ipv6": "eth1"}, BOTH, "eth1"),
    ("", {"ipv4": "eth0", "ipv6": "eth1"}, ("ipv6",), "eth1"),
    ("eth1", {"ipv4": "eth0", "ipv6": "eth0"}, BOTH, "eth1"),
    ("eth1", {}, BOTH, "eth1"),
    ("lo", {}, BOTH, "lo"),
]


@pytest.mark.parametrize(("wanted", "defaults", "families", "chosen"), CHOICES)
def test_choose_interface(wanted, defaults, families, chosen):
    assert choose_interface(wanted, KNOWN, defaults, families) == chosen


NOT_CHOSEN = [
    ("eth9", {"ipv4": "eth0"}, r"this host has no interface eth9\. It has eth0, eth1\."),
    ("", {"ipv4": "eth0", "ipv6": "eth1"}, r"different interfaces \(eth0, eth1\), and knockd listens on one\. Name"),
    ("", {}, r"no default route to tell the interface by\. Name the one that knocks come in by: eth0, eth1\."),
]


@pytest.mark.parametrize(("wanted", "defaults", "message"), NOT_CHOSEN)
def test_choose_interface_refuses(wanted, defaults, message):
    with pytest.raises(SpecError, match="^knockd_interface: .*" + message):
        choose_interface(wanted, KNOWN, defaults, BOTH)


INTERFACES = st.from_regex(r"\A[A-Za-z0-9_.-]{1,15}\Z")


@given(name=INTERFACES)
@example(name="-")
@example(name="--")
@example(name="eth0.100")
def test_no_interface_breaks_the_configuration(name):
    spec = spec_of(knockd_interface=name)
    text = config_text(spec, BOTH, spec.knockd_interface, HERE)
    assert Knockd(text).interface == name
    assert interface_of(text) == name
    assert not is_edited(text)
