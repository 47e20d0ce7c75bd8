# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mistakes that people make with the role's variables, and the whole message for each. tests/wire runs them, too."""

from typing import Any, Dict, List, Tuple

DOOR: Dict[str, Any] = {"name": "ssh", "knock": [40001, 30002], "opens": [22]}
_PORT = "A port is a whole number from 1 to 65535, with no leading zero."
_LIST = "but must be a list: each entry begins with '- ', and [] has none."
_NULL = "is empty (null). Give it a value, or remove the line."
_DOOR_KEYS = "The keys are name, knock, opens, window, step_timeout, sources, close, once, to."
_WRITE = "Write PORT, PORT/tcp or PORT/udp."
_OTHER_NUMBERS = "Without quotes YAML reads 22:22 and 0777 as other numbers."
_QUOTE = "is true or false, but must be a text. YAML reads yes, no, on and off as that: quote it."
_NO_CIDR = "is neither an address nor a network. Write an address or a CIDR such as 192.0.2.0/24."


def _door(**more: Any) -> Dict[str, Any]:
    return {"portknock_doors": [dict(DOOR, **more)]}


def _doorless(key: str) -> Dict[str, Any]:
    return {"portknock_doors": [{name: value for name, value in DOOR.items() if name != key}]}


def _is(name: str, value: Any) -> Dict[str, Any]:
    return {"portknock_doors": [DOOR], "portknock_" + name: value}


MISTAKES: List[Tuple[Dict[str, Any], str]] = [
    # Names
    (_is("polcy", "reject"), "portknock_polcy: there is no such variable. Did you mean portknock_policy?"),
    ({"portknock_door": [DOOR]}, "portknock_door: there is no such variable. Did you mean portknock_doors?"),
    (_is("trusted_source", []), "portknock_trusted_source: there is no such variable. Did you mean portknock_trusted_sources?"),
    (_is("gaurd_timeout", 60), "portknock_gaurd_timeout: there is no such variable. Did you mean portknock_guard_timeout?"),
    (_is("host", "web"), "portknock_host: there is no such variable. Did you mean portknock_hosts?"),
    (_is("colour", "red"), "portknock_colour: there is no such variable. Names that begin with portknock_ are this role's: "
                           "give a variable of your own another one."),
    ({"portknock_doors": [{"name": "ssh", "knocks": [40001], "opens": [22]}]},
     "portknock_doors[0].knocks: there is no such key. Did you mean knock? " + _DOOR_KEYS),
    (_door(port=22), "portknock_doors[0].port: there is no such key. " + _DOOR_KEYS),
    (_is("allow", [{"ports": 443}]), "portknock_allow[0].ports: there is no such key. Did you mean port? "
                                     "The keys are port, protocol, sources, comment."),
    # A dictionary or a text for a list
    ({"portknock_doors": DOOR}, "portknock_doors: is a dictionary, " + _LIST),
    ({"portknock_doors": {"ssh": {"knock": [40001], "opens": [22]}}}, "portknock_doors: is a dictionary, " + _LIST),
    ({"portknock_doors": "ssh"}, "portknock_doors: is a text, " + _LIST),
    ({"portknock_doors": 40001}, "portknock_doors: is a number, " + _LIST),
    ({"portknock_doors": ["ssh"]}, "portknock_doors[0]: is a text, but must be a dictionary with the keys " + _DOOR_KEYS[13:]),
    (_door(knock={"port": 40001}), "portknock_doors[0].knock: is a dictionary, " + _LIST),
    (_door(opens={"port": 22}), "portknock_doors[0].opens: is a dictionary, " + _LIST),
    (_is("allow", {"port": 443}), "portknock_allow: is a dictionary, " + _LIST),
    (_is("allow", [443]), "portknock_allow[0]: is a number, but must be a dictionary with the keys port, protocol, sources, comment."),
    (_is("trusted_sources", {"home": "192.0.2.1"}), "portknock_trusted_sources: is a dictionary, " + _LIST),
    # Nothing where something must be
    ({"portknock_doors": None}, "portknock_doors: " + _NULL),
    (_is("guard", None), "portknock_guard: " + _NULL),
    (_door(knock=None), "portknock_doors[0].knock: " + _NULL),
    (_door(sources=None), "portknock_doors[0].sources: " + _NULL),
    (_door(knock=[]), "portknock_doors[0].knock: has 0 steps. Give it 1 to 8."),
    (_doorless("name"), "portknock_doors[0].name: is missing. Give the door one, such as ssh."),
    (_doorless("knock"), "portknock_doors[0].knock: is missing. Give it 1 to 8 steps."),
    (_doorless("opens"), "portknock_doors[0].opens: is missing. Name at least one port that the knock opens."),
    (_is("allow", [{"comment": "web"}]), "portknock_allow[0].port: is missing. Name the port that is open."),
    # Ports
    (_door(knock=["40001:tcp", 30002]),
     "portknock_doors[0].knock[0]: the protocol stands behind the port and a slash. " + _WRITE),
    (_door(knock=["udp/40001"]), "portknock_doors[0].knock[0]: the protocol stands behind the port and a slash. " + _WRITE),
    (_door(knock=["40001/sctp"]), "portknock_doors[0].knock[0]: the protocol is unknown. " + _WRITE),
    (_door(knock="40001 30002"), "portknock_doors[0].knock[0]: this is not a valid port. " + _PORT
                                 + " Several are a list, or have commas between them."),
    (_door(knock=["040001"]), "portknock_doors[0].knock[0]: this is not a valid port. " + _PORT),
    (_door(knock=["0o7777"]), "portknock_doors[0].knock[0]: this is not a valid port. " + _PORT),
    (_door(knock=[7144 * 60 + 22]), f"portknock_doors[0].knock[0]: this is not a valid port. {_PORT} {_OTHER_NUMBERS}"),
    (_door(knock=[40001.0]), "portknock_doors[0].knock[0]: is a number, but must be PORT, PORT/tcp or PORT/udp."),
    (_door(knock=[True]), "portknock_doors[0].knock[0]: is true or false, but must be PORT, PORT/tcp or PORT/udp."),
    (_door(opens=["ssh"]), "portknock_doors[0].opens[0]: 'ssh' is not a valid port. " + _PORT),
    (_door(opens="8000:8010"), "portknock_doors[0].opens[0]: a range has a dash in it. Write FIRST-LAST."),
    (_door(opens=["22-20"]), "portknock_doors[0].opens[0]: the range ends before it begins. Write FIRST-LAST."),
    (_is("allow", [{"port": "443/tcp", "protocol": "udp"}]), "portknock_allow[0].protocol: is udp, but the port says tcp."),
    # Other values
    (_door(name=True), "portknock_doors[0].name: " + _QUOTE),
    (_door(name="my door"), "portknock_doors[0].name: 'my door' is not a valid name: use a letter, then letters, digits or '_', "
                            "at most 16 characters."),
    (_door(window="15s"), "portknock_doors[0].window: must be a whole number from 1 to 86400."),
    (_door(sources=["office"]), "portknock_doors[0].sources[0]: 'office' " + _NO_CIDR),
    (_is("trusted_sources", ["192.0.2.1/24"]),
     "portknock_trusted_sources[0]: '192.0.2.1/24' has host bits set. Did you mean 192.0.2.0/24?"),
    (_is("trusted_interfaces", [True]), "portknock_trusted_interfaces[0]: " + _QUOTE),
    (_is("engine", "nockd"), "portknock_engine: is 'nockd', but must be one of iptables, knockd, nftables."),
    (_is("policy", "drop"), "portknock_policy: is 'drop', but must be one of reject, accept."),
    (_is("state", "Absent"), "portknock_state: is 'Absent', but must be one of present, absent."),
    (_is("conflicting_firewall", "stop"), "portknock_conflicting_firewall: is 'stop', but must be one of fail, disable."),
    (_is("ip_versions", [4, 6]), "portknock_ip_versions[0]: must be one of ipv4, ipv6."),
    (_is("guard_timeout", "30s"), "portknock_guard_timeout: must be a whole number from 5 to 600."),
    (_is("icmp", "echo"), "portknock_icmp: must be true or false."),
    (_is("verify", "later"), "portknock_verify: must be true or false."),
    (_is("allow", [{"port": 443, "comment": 'the "shop"'}]),
     "portknock_allow[0].comment: must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -"),
]  # fmt: skip
"""The role's variables, and what the operator reads."""
