# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options to a Spec: what is refused, with which words, and what is taken."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports


def one(**more):
    return {"doors": [dict({"name": "ssh", "knock": ["7005", "9100"], "opens": ["22"]}, **more)]}


def two(first, second, **more):
    pair = [{"name": "a", "knock": first, "opens": ["22"]}, {"name": "b", "knock": second, "opens": ["80"]}]
    pair[1].update(more)
    return {"doors": pair}


PORT = "A port is a whole number from 1 to 65535, with no leading zero."
DOOR_KEYS = "name, knock, opens, window, step_timeout, sources, close, once, to"
OTHER_NUMBERS = " Without quotes YAML reads 22:22 and 0777 as other numbers."
SEVERAL = " Several are a list, or have commas between them."
ONE_PORT = "must be PORT, PORT/tcp or PORT/udp."
NULL = "is empty (null). Give it a value, or remove the line."
LIST = "but must be a list: each entry begins with '- ', and [] has none."
SHUT = "A knock port must stay closed: choose another."
FAR = "Choose ports that are far apart and neither rise nor fall, such as one high, one low, one between."
SCAN = "a linear port scan would hit these steps in order, with no port between them that resets the knock. " + FAR
REPEAT = "is the same as the step before it. A repeat looks like a retransmitted packet: choose another."
NAME = "is not a valid name: use a letter, then letters, digits or '_', at most 16 characters."
INTERFACE = "is not an interface name. Write one such as eth0."
CLASH = (
    "doors[{0}].knock: has all steps of doors[{1}].{2} in their order, so it would {3} door {4!r} as well. "
    "Choose other ports for one of the two."
)

REFUSED = [
    # Ports
    (one(opens=["0"]), "doors[0].opens[0]: this is not a valid port. " + PORT),
    (one(opens=["65536"]), "doors[0].opens[0]: this is not a valid port. " + PORT + OTHER_NUMBERS),
    (one(opens=[22 * 60 * 60 + 22]), "doors[0].opens[0]: this is not a valid port. " + PORT + OTHER_NUMBERS),
    (one(opens="22 80"), "doors[0].opens[0]: this is not a valid port. " + PORT + SEVERAL),
    (one(opens=["0022"]), "doors[0].opens[0]: this is not a valid port. " + PORT),
    (one(opens=["22", "ssh"]), "doors[0].opens[1]: 'ssh' is not a valid port. " + PORT),
    (one(opens=["-22"]), "doors[0].opens[0]: '' is not a valid port. " + PORT),
    (one(opens=["22-"]), "doors[0].opens[0]: '' is not a valid port. " + PORT),
    (one(opens=["22-20"]), "doors[0].opens[0]: the range ends before it begins. Write FIRST-LAST."),
    (one(opens=["22/icmp"]), "doors[0].opens[0]: the protocol is unknown. Write PORT, PORT/tcp or PORT/udp."),
    (one(opens=["22/"]), "doors[0].opens[0]: the protocol is unknown. Write PORT, PORT/tcp or PORT/udp."),
    (one(opens=[22.5]), "doors[0].opens[0]: is a number, but " + ONE_PORT),
    (one(opens=[True]), "doors[0].opens[0]: is true or false, but " + ONE_PORT),
    (one(opens=[None]), "doors[0].opens[0]: is empty, but " + ONE_PORT),
    (one(opens=["22:tcp"]), "doors[0].opens[0]: the protocol stands behind the port and a slash. Write PORT, PORT/tcp or PORT/udp."),
    (one(opens=["8000:8010"]), "doors[0].opens[0]: a range has a dash in it. Write FIRST-LAST."),
    (one(opens=[["22"]]), "doors[0].opens[0]: is a list, but " + ONE_PORT),
    (one(opens=[]), "doors[0].opens: is empty. Name at least one port that the knock opens."),
    (one(opens=""), "doors[0].opens: is empty. Name at least one port that the knock opens."),
    (one(opens=None), "doors[0].opens: " + NULL),
    (one(opens={"port": 22}), "doors[0].opens: is a dictionary, " + LIST),
    (one(opens=True), "doors[0].opens: is true or false, " + LIST),
    # Knocks: no step in a message
    (one(knock=["0"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["7005", "65536"]), "doors[0].knock[1]: this is not a valid port. " + PORT + OTHER_NUMBERS),
    (one(knock=7144 * 60 + 22), "doors[0].knock[0]: this is not a valid port. " + PORT + OTHER_NUMBERS),
    (one(knock="7144 2791/udp"), "doors[0].knock[0]: this is not a valid port. " + PORT + SEVERAL),
    (one(knock=["0o7005"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["7005:tcp"]), "doors[0].knock[0]: the protocol stands behind the port and a slash. Write PORT, PORT/tcp or PORT/udp."),
    (one(knock=["udp/7005"]), "doors[0].knock[0]: the protocol stands behind the port and a slash. Write PORT, PORT/tcp or PORT/udp."),
    (one(knock=["07005"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["0x1b5d"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["7005-7010"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["\t7005"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["7005\n"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["\u0667\u0660\u0660\u0665"]), "doors[0].knock[0]: this is not a valid port. " + PORT),
    (one(knock=["7005/icmp"]), "doors[0].knock[0]: the protocol is unknown. Write PORT, PORT/tcp or PORT/udp."),
    (one(knock=["7005/TCP"]), "doors[0].knock[0]: the protocol is unknown. Write PORT, PORT/tcp or PORT/udp."),
    (one(knock=[7005.0]), "doors[0].knock[0]: is a number, but " + ONE_PORT),
    (one(knock=[]), "doors[0].knock: has 0 steps. Give it 1 to 8."),
    (one(knock=None), "doors[0].knock: " + NULL),
    (one(window=None), "doors[0].window: " + NULL),
    (one(sources=None), "doors[0].sources: " + NULL),
    ({"doors": [{"name": "ssh", "opens": ["22"]}]}, "doors[0].knock: is missing. Give it 1 to 8 steps."),
    ({"doors": [{"name": "ssh", "knock": ["7005"]}]}, "doors[0].opens: is missing. Name at least one port that the knock opens."),
    (one(knock=[str(20000 - 500 * n + 9000 * (n % 2)) for n in range(9)]), "doors[0].knock: has 9 steps. Give it 1 to 8."),
    (one(knock={"port": 7005}), "doors[0].knock: is a dictionary, " + LIST),
    (one(close=["0"]), "doors[0].close[0]: this is not a valid port. " + PORT),
    (one(close=[str(60000 - 5000 * n) for n in range(9)]), "doors[0].close: has 9 steps. Give it 1 to 8."),
    (one(knock=["7005", "7005"]), "doors[0].knock[1]: " + REPEAT),
    (one(knock=["7005", "9100", "9100/tcp"]), "doors[0].knock[2]: " + REPEAT),
    (one(close=["5000", "5000"]), "doors[0].close[1]: " + REPEAT),
    # Doors
    (one(name="a234567890123456x"), "doors[0].name: " + NAME),
    (one(name="1st"), "doors[0].name: " + NAME),
    (one(name="a.b"), "doors[0].name: 'a.b' " + NAME),
    (one(name=""), "doors[0].name: '' " + NAME),
    (one(name="ssh\n"), "doors[0].name: 'ssh\\n' " + NAME),
    ({"doors": [{"knock": ["1000"], "opens": ["22"]}]}, "doors[0].name: is missing. Give the door one, such as ssh."),
    (one(name=True), "doors[0].name: is true or false, but must be a text. YAML reads yes, no, on and off as that: quote it."),
    (one(name=["ssh"]), "doors[0].name: is a list, but must be a text."),
    (
        {"doors": one()["doors"] + [{"name": "ssh", "knock": ["4000"], "opens": ["80"]}]},
        "doors[1].name: 'ssh' is already the name of doors[0]. Give each door a name of its own.",
    ),
    (one(windows=3), "doors[0].windows: there is no such key. Did you mean window? The keys are {0}.".format(DOOR_KEYS)),
    (one(color=3), "doors[0].color: there is no such key. The keys are {0}.".format(DOOR_KEYS)),
    ({"doors": ["ssh"]}, "doors[0]: is a text, but must be a dictionary with the keys {0}.".format(DOOR_KEYS)),
    ({"doors": {"name": "ssh"}}, "doors: is a dictionary, " + LIST),
    ({"doors": 5}, "doors: is a number, " + LIST),
    ({"doors": "ssh"}, "doors: is a text, " + LIST),
    ({"doors": None}, "doors: " + NULL),
    ({"policy": None}, "policy: " + NULL),
    ({"guard": None}, "guard: " + NULL),
    ({"trusted_sources": None}, "trusted_sources: " + NULL),
    (one(window=0), "doors[0].window: must be a whole number from 1 to 86400."),
    (one(window=86401), "doors[0].window: must be a whole number from 1 to 86400."),
    (one(window=-5), "doors[0].window: must be a whole number from 1 to 86400."),
    (one(window="015"), "doors[0].window: must be a whole number from 1 to 86400."),
    (one(window=1.5), "doors[0].window: must be a whole number from 1 to 86400."),
    (one(window=True), "doors[0].window: must be a whole number from 1 to 86400."),
    (one(window="15s"), "doors[0].window: must be a whole number from 1 to 86400."),
    (one(step_timeout=0), "doors[0].step_timeout: must be a whole number from 1 to 86400."),
    (one(once="maybe"), "doors[0].once: must be true or false."),
    # Networks
    (
        one(sources=["192.0.2.300"]),
        "doors[0].sources[0]: '192.0.2.300' is neither an address nor a network. Write an address or a CIDR such as 192.0.2.0/24.",
    ),
    (
        one(sources=["192.0.2.0/33"]),
        "doors[0].sources[0]: '192.0.2.0/33' is neither an address nor a network. Write an address or a CIDR such as 192.0.2.0/24.",
    ),
    (
        one(sources=["192.0.2.1/24"]),
        "doors[0].sources[0]: '192.0.2.1/24' has host bits set. Did you mean 192.0.2.0/24?",
    ),
    (
        {"trusted_sources": ["host.example"]},
        "trusted_sources[0]: 'host.example' is neither an address nor a network. Write an address or a CIDR such as 192.0.2.0/24.",
    ),
    (
        {"trusted_sources": ["2001:db8::/32"], "ip_versions": ["ipv4"]},
        "trusted_sources[0]: 2001:db8::/32 is an IPv6 network, but ip_versions does not name ipv6. Add it there or remove the network.",
    ),
    (
        dict(one(sources=["192.0.2.1"]), ip_versions=["ipv6"]),
        "doors[0].sources[0]: 192.0.2.1/32 is an IPv4 network, but ip_versions does not name ipv4. Add it there or remove the network.",
    ),
    (
        {"allow": [{"port": 80, "sources": ["::1/127"]}]},
        "allow[0].sources[0]: '::1/127' has host bits set. Did you mean ::/127?",
    ),
    (one(sources={"from": "192.0.2.1"}), "doors[0].sources: is a dictionary, " + LIST),
    # Scans
    (one(knock=["7000", "7001", "7002"]), "doors[0].knock: " + SCAN),
    (one(knock=["7002", "7001", "7000"]), "doors[0].knock: " + SCAN),
    (one(knock=["7000", "7002"], opens=["7001"]), "doors[0].knock: " + SCAN),
    (dict(one(knock=["7000", "7002"]), allow=[{"port": 7001}]), "doors[0].knock: " + SCAN),
    (two(["7000", "7002"], ["7001"]), "doors[0].knock: " + SCAN),
    (dict(one(knock=["7000", "7010"]), allow=[{"port": "7001-7009"}]), "doors[0].knock: " + SCAN),
    (one(knock=["65535", "1"]), "doors[0].knock: " + SCAN),
    (one(knock=["1", "65535"]), "doors[0].knock: " + SCAN),
    # Knock ports that are open, doors that are void
    (one(knock=["7005", "22"]), "doors[0].knock[1]: is a port that doors[0].opens opens. " + SHUT),
    (one(close=["22"]), "doors[0].close[0]: is a port that doors[0].opens opens. " + SHUT),
    (one(knock=["7005", "25"], opens=["20-30"]), "doors[0].knock[1]: is a port that doors[0].opens opens. " + SHUT),
    (two(["7005", "80"], ["1000"]), "doors[0].knock[1]: is a port that doors[1].opens opens. " + SHUT),
    (dict(one(), allow=[{"port": 80}, {"port": 9100}]), "doors[0].knock[1]: is a port that allow[1] lets in. " + SHUT),
    (dict(one(), allow=[{"port": "9000-9200"}]), "doors[0].knock[1]: is a port that allow[0] lets in. " + SHUT),
    (
        dict(one(), allow=[{"port": 9100, "sources": ["192.0.2.1"]}]),
        "doors[0].knock[1]: is a port that allow[0] lets in. " + SHUT,
    ),
    (
        dict(one(), allow=[{"port": "20-30"}]),
        "allow[0].port: is open to everyone here, but is also opened by door 'ssh': the knock would have no effect. "
        "Name the sources that need no knock, or remove one of the two.",
    ),
    # Clashes
    (two(["1000"], ["2000", "1000"]), CLASH.format(1, 0, "knock", "open", "a")),
    (two(["1000", "500"], ["1000", "500"]), CLASH.format(1, 0, "knock", "open", "a")),
    (two(["5000", "1000"], ["5000", "3000", "1000"]), CLASH.format(1, 0, "knock", "open", "a")),
    (two(["7005", "1000"], ["2000", "500"], close=["1000"]), CLASH.format(0, 1, "close", "close", "b")),
    (
        one(knock=["7005", "1000", "9100"], close=["7005", "9100"]),
        "doors[0].knock: has all steps of doors[0].close in their order, so it would close door 'ssh' as well. "
        "Choose other ports for one of the two.",
    ),
    # Allow
    ({"allow": [{}]}, "allow[0].port: is missing. Name the port that is open."),
    ({"allow": [{"port": "0"}]}, "allow[0].port: this is not a valid port. " + PORT),
    ({"allow": [{"port": "0443"}]}, "allow[0].port: this is not a valid port. " + PORT),
    ({"allow": [{"port": 80, "protocol": "icmp"}]}, "allow[0].protocol: is 'icmp', but must be one of tcp, udp."),
    ({"allow": [{"port": "80/tcp", "protocol": "udp"}]}, "allow[0].protocol: is udp, but the port says tcp."),
    (
        {"allow": [{"port": 80, "comment": 'a "quote"'}]},
        "allow[0].comment: must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -",
    ),
    (
        {"allow": [{"port": 80, "comment": "x" * 81}]},
        "allow[0].comment: must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -",
    ),
    (
        {"allow": [{"port": 80, "comment": "two\nlines"}]},
        "allow[0].comment: must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -",
    ),
    (
        {"allow": [{"port": 80, "comment": "a line\n"}]},
        "allow[0].comment: must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -",
    ),
    ({"allow": [{"port": 80, "comment": True}]},
     "allow[0].comment: is true or false, but must be a text. YAML reads yes, no, on and off as that: quote it."),
    ({"allow": [{"port": 80, "comment": "\u6771\u4eac" * 40}]},
     "allow[0].comment: is longer than 220 bytes in UTF-8, more than a rule can hold. Shorten it."),
    ({"allow": [{"port": 80, "comment": "\u202e"}]},
     "allow[0].comment: must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -"),
    ({"allow": [{"ports": 80}]}, "allow[0].ports: there is no such key. Did you mean port? The keys are port, protocol, sources, comment."),
    ({"allow": [80]}, "allow[0]: is a number, but must be a dictionary with the keys port, protocol, sources, comment."),
    # The rest
    ({"trusted_interfaces": ["eth0 -j ACCEPT"]},
     "trusted_interfaces[0]: 'eth0 -j ACCEPT' is not an interface name. Write one such as wg0, or wg+ for a prefix."),
    ({"trusted_interfaces": ["x" * 16]},
     "trusted_interfaces[0]: '{0}' is not an interface name. Write one such as wg0, or wg+ for a prefix.".format("x" * 16)),
    ({"trusted_interfaces": ["wg0\n"]},
     "trusted_interfaces[0]: 'wg0\\n' is not an interface name. Write one such as wg0, or wg+ for a prefix."),
    ({"trusted_interfaces": ["+"]},
     "trusted_interfaces[0]: '+' is not an interface name. Write one such as wg0, or wg+ for a prefix."),
    ({"policy": "drop"}, "policy: is 'drop', but must be one of reject, accept."),
    ({"reject_with": "host"},
     "reject_with: is 'host', but must be one of icmp-port-unreachable, tcp-reset, icmp-admin-prohibited, drop."),
    ({"engine": "ipset"}, "engine: is 'ipset', but must be one of iptables, knockd, nftables."),
    ({"knockd_interface": "eth+"}, "knockd_interface: 'eth+' " + INTERFACE),
    ({"knockd_interface": "eth0\n"}, "knockd_interface: 'eth0\\n' " + INTERFACE),
    ({"knockd_interface": "eth0 [x]"}, "knockd_interface: 'eth0 [x]' " + INTERFACE),
    ({"knockd_interface": "eth0;id"}, "knockd_interface: 'eth0;id' " + INTERFACE),
    ({"knockd_interface": "$(id)"}, "knockd_interface: '$(id)' " + INTERFACE),
    ({"knockd_interface": "x" * 16}, "knockd_interface: '{0}' ".format("x" * 16) + INTERFACE),
    ({"state": "gone"}, "state: is 'gone', but must be one of present, absent."),
    ({"ip_versions": []}, "ip_versions: is empty. Name ipv4, ipv6 or both."),
    ({"ip_versions": ["ipv5"]}, "ip_versions[0]: is 'ipv5', but must be one of ipv4, ipv6."),
    ({"ip_versions": "ipv5,ipv4"}, "ip_versions[0]: is 'ipv5', but must be one of ipv4, ipv6."),
    ({"acknowledge": ["lost_effect", "list_sise"]},
     "acknowledge[1]: 'list_sise' is not a kind of finding. Did you mean list_size? What can be acknowledged is broad_trust, "
     "connection_unguarded, knockd, limited, list_size, lost_effect, may_be_unguarded, native_table, native_unknown, "
     "not_loaded_at_boot, not_persisted, nothing_listens, only_at_boot, other_firewall, protocol_refused, saves_on_stop, "
     "single_step."),
    ({"acknowledge": "unguarded"},
     "acknowledge[0]: unguarded is an error: the doors or your way in are not what you asked for, so it is always shown. "
     "docs/findings.md says what to do about it."),
    ({"acknowledge": [True]},
     "acknowledge[0]: is true or false, but must be a text. YAML reads yes, no, on and off as that: quote it."),
    ({"conflicting_firewall": "stop"}, "conflicting_firewall: is 'stop', but must be one of fail, disable."),
    ({"trusted_interfaces": [True]},
     "trusted_interfaces[0]: is true or false, but must be a text. YAML reads yes, no, on and off as that: quote it."),
    ({"trusted_sources": {"a": 1}}, "trusted_sources: is a dictionary, " + LIST),
    ({"ipv6_prefix": 63}, "ipv6_prefix: must be a whole number from 64 to 128."),
    ({"ipv6_prefix": 129}, "ipv6_prefix: must be a whole number from 64 to 128."),
    ({"list_size": 0}, "list_size: must be a whole number from 1 to 1000000."),
    ({"icmp": "perhaps"}, "icmp: must be true or false."),
    ({"log": 2}, "log: must be true or false."),
    ({"persist": "never"}, "persist: must be true or false."),
    (
        {"trusted_sources": ["192.0.2.1", "0.0.0.0/0"]},
        "trusted_sources[1]: 0.0.0.0/0 includes everyone, so no door would need a knock. Name your own addresses.",
    ),
    (
        dict(one(), allow=[{"port": 22, "sources": ["::/0"]}]),
        "allow[0].port: is open to everyone here, but is also opened by door 'ssh': the knock would have no effect. "
        "Name the sources that need no knock, or remove one of the two.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"), REFUSED, ids=[item[1].split(":")[0] + "-" + str(n) for n, item in enumerate(REFUSED)]
)
def test_refused(options, message):
    with pytest.raises(SpecError) as refusal:
        spec_from_options(options)
    assert str(refusal.value) == message
    assert str(refusal.value).startswith(refusal.value.option + ": ")


def test_the_prefix_is_in_every_path():
    for options, message in REFUSED:
        with pytest.raises(SpecError) as refusal:
            spec_from_options(options, prefix="portknock_")
        assert str(refusal.value).startswith("portknock_" + message.split(":")[0])
        if "doors[" in message.partition(": ")[2]:
            assert " doors[" not in str(refusal.value)


TAKEN = [
    one(knock=["7000", "7001", "6999"]),
    one(knock=["7000", " 9100/udp "], opens=[" 22-30"]),
    one(knock=["7000", "7002"]),
    one(knock=["7001", "7000", "7002"]),
    one(knock=["7005", "9100"], close=["9100", "7005"]),
    dict(one(), allow=[{"port": 22, "sources": ["192.0.2.1"]}]),
    dict(one(), allow=[{"port": "22/udp"}, {"port": "7005/udp"}]),
    two(["1000", "500"], ["2000", "500"]),
    two(["1000", "500"], ["500", "3000"]),
    one(name="a23456789012345_"),
    one(window=86400, step_timeout=86400),
    {"trusted_interfaces": ["wg+", "eth0.100", "br-lan", "x" * 15, "y" * 14 + "+"]},
    {"trusted_sources": ["192.0.2.0/24", "2001:db8::/32", "0.0.0.0/1", "fc00::/7"]},
    {"ipv6_prefix": "64", "list_size": "100", "log": "yes", "icmp": "no"},
    {"trusted_sources": "192.0.2.1, 192.0.2.2", "trusted_interfaces": "wg0", "ip_versions": "ipv4, ipv6"},
    {"trusted_sources": "", "guard": "t", "persist": "N", "guard_timeout": " 30 "},
    {
        "allow": [
            {"port": 80, "comment": "B\u00fcro Z\u00fcrich, \u6771\u4eac \u043e\u0444\u0438\u0441"},
            {"port": 81, "comment": 7},
        ]
    },
    {"allow": [{"port": 80, "comment": "\u0939\u093f\u0928\u094d\u0926\u0940"}]},
]


@pytest.mark.parametrize("options", TAKEN)
def test_taken(options):
    spec_from_options(options)


def test_defaults():
    spec = spec_from_options(one())
    door = spec.doors[0]
    assert (door.window, door.step_timeout, door.sources, door.close, door.once) == (15, 5, (), (), False)
    assert (spec.policy, spec.reject_with, spec.allow, spec.trusted_sources) == (
        "reject",
        "icmp-port-unreachable",
        (),
        (),
    )
    assert (spec.trusted_interfaces, spec.icmp, spec.ip_versions) == (("lo",), True, ("ipv4", "ipv6"))
    assert (spec.ipv6_prefix, spec.list_size, spec.log) == (128, 4096, False)


def test_ports_as_yaml_gives_them():
    """A number and its text are the same port; ansible hands the module texts, include_role keeps numbers."""
    door = spec_from_options(one(knock=[7005, "9100/udp"], opens=[22, "80-90", "53/udp", 443])).doors[0]
    assert door.knock == (Step(7005, "tcp"), Step(9100, "udp"))
    assert door.opens == (Ports(22, 22, "tcp"), Ports(80, 90, "tcp"), Ports(53, 53, "udp"), Ports(443, 443, "tcp"))


def test_a_yaml_octal_is_refused_where_it_shows():
    """YAML 1.1 reads 0022 without quotes as 18; the quoted text keeps its zero and is refused."""
    with pytest.raises(SpecError, match="no leading zero"):
        spec_from_options(one(knock=["0022"]))
    assert spec_from_options(one(opens=[0o22])).doors[0].opens == (Ports(18, 18, "tcp"),)


def test_allow_takes_the_protocol_from_either_place():
    spec = spec_from_options(
        {"allow": [{"port": "53/udp"}, {"port": 53, "protocol": "udp"}, {"port": "53/udp", "protocol": "udp"}]}
    )
    assert {allow.ports for allow in spec.allow} == {Ports(53, 53, "udp")}


def test_families_come_in_one_order():
    assert spec_from_options({"ip_versions": ["ipv6", "ipv4", "ipv6"]}).ip_versions == ("ipv4", "ipv6")


def test_networks():
    spec = spec_from_options({"trusted_sources": ["192.0.2.7", "2001:DB8::7"]})
    assert spec.trusted_sources == (ipaddress.ip_network("192.0.2.7/32"), ipaddress.ip_network("2001:db8::7/128"))


def test_what_core_takes_for_a_list_is_one():
    """A text with commas, a number: in the module's released argument spec core made lists of them."""
    written = spec_from_options(one(knock="7005, 9100/udp", opens=22, sources="192.0.2.1,192.0.2.2", close="500"))
    listed = one(knock=["7005", "9100/udp"], opens=["22"], sources=["192.0.2.1", "192.0.2.2"], close=["500"])
    assert written == spec_from_options(listed)
