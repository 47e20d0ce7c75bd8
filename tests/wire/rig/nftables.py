# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's table of nftables on the target, made by its own core and loaded with nft."""

import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from rig.lan import Namespace
from rig.target import door, use_collection

use_collection()
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, read_listing  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element, read_elements  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import (  # noqa: E402
    Installed,
    read_installed,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import (  # noqa: E402
    absent_text,
    change_text,
    load_text,
    read_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options  # noqa: E402

NFTABLES = "nftables"
"""The engine."""

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, opens=(2222,), window=600, step_timeout=60)
ALLOW = [
    {"port": "443", "comment": "für alle, 誰でも" * 6},
    {"port": "5000-6000", "sources": ["192.0.2.0/24", "2001:db8::/32"]},
]
OTHER_DOORS = [
    door(4000 + number * 11, 30000 - number * 7, name=f"d{number}", opens=(9000 + number,)) for number in range(40)
]
WANTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "one": {"doors": [DOOR]},
    "more": {"doors": [DOOR, *OTHER_DOORS], "allow": ALLOW},
    "ranges": {
        "doors": [door(*KNOCK, opens=("22", "5500-5510", "53/udp")), DOOR | {"name": "b", "knock": ["1"]}],
        "allow": ALLOW,
    },
    "once, closed by a knock": {
        "doors": [DOOR | {"once": True, "close": ["6000", "61/udp"], "sources": ["10.0.0.0/8", "fd00::/8"]}]
    },
    "next steps that are shared": {
        "doors": [DOOR, DOOR | {"name": "b", "knock": ["7900", "9100/udp", "3100"], "close": ["7800/udp", "3100"]}],
        "ipv6_prefix": 72,
        "log": True,
    },
    "accept": {"doors": [DOOR], "policy": "accept", "log": True, "icmp": False},
    "prefix": {"doors": [DOOR], "ipv6_prefix": 64, "reject_with": "tcp-reset"},
    "ipv4": {"doors": [DOOR], "ip_versions": ["ipv4"], "reject_with": "drop"},
    "ipv6": {"doors": [DOOR], "ip_versions": ["ipv6"], "reject_with": "icmp-admin-prohibited"},
    "sent on": {
        "doors": [
            DOOR,
            door(4100, 2700, name="behind", opens=("22", "5000-5010/udp"), to=["10.9.0.5", "10.9.1.0/24", "fd09::/64"]),
        ],
        "published": "policy",
        "allow": ALLOW,
    },
    "left alone": {"doors": [DOOR], "published": "none"},
    "trusted": {
        "doors": [DOOR],
        "trusted_sources": ["10.9.0.0/16", "10.9.1.0/24", "::1"],
        "trusted_interfaces": ["lo", "tun+"],
    },
}
"""A name to options, which together have everything that a table can have."""


def text_of(options: Mapping[str, Any]) -> str:
    """Return the text that loads the table of some options."""
    return load_text(build_table(spec_from_options(dict(options)))).text


def check_loads_again(run: Callable[..., subprocess.CompletedProcess[str]], options: Mapping[str, Any]) -> None:
    """Load the table of some options, with a source in each set, as others save a ruleset; a boot loads that and our text behind it.

    :param run: runs a command where there is nothing else in nftables, with a text for its standard input.
    """
    text = text_of(options)
    sets = read_text(text).sets
    known = {"ipv4_addr": "10.1.2.3", "ipv6_addr": "2001:db8::"}
    known.update({f"{kind} . mark": f"{address} . 0x80000001" for kind, address in known.items()})
    elements = [f"add element {TABLE} {name} {{ {known[kind]} timeout 1h }}\n" for name, kind in sets.items()]
    run("nft", "-f", "/dev/stdin", stdin="flush ruleset\n" + text + "".join(elements))
    printed = run("nft", "list", "ruleset").stdout
    run("nft", "-f", "/dev/stdin", stdin="flush ruleset\n" + printed)
    assert _VOLATILE.sub("", run("nft", "list", "ruleset").stdout) == _VOLATILE.sub("", printed)
    assert len(re.findall(r"10\.1\.2\.3|2001:db8:: ", printed)) >= len(sets)
    run("nft", "-f", "/dev/stdin", stdin=text)


_VOLATILE = re.compile(r" expires \w+| bytes \d+")


class Table:
    """The table in a namespace."""

    def __init__(self, namespace: Namespace) -> None:
        """Take the namespace."""
        self._namespace = namespace

    def items(self) -> list[Item]:
        """Return all that nft lists."""
        return read_listing(self._namespace.run("nft", "-j", "list", "ruleset").stdout) or []

    def installed(self) -> Installed | None:
        """Return the table as it is."""
        return read_installed(self.items())

    def load(self, text: str) -> None:
        """Load a text in one transaction."""
        self._namespace.run("nft", "-f", "/dev/stdin", stdin=text)

    def apply(self, **options: Any) -> str:
        """Have the table of some options in place of what is there, and return the transaction."""
        installed = self.installed()
        is_absent = options.get("state") == "absent"
        text = absent_text(installed) if is_absent else change_text(text_of(options), installed)
        if text:
            self.load(text)
        return text

    def remove(self) -> None:
        """Take the table out, if it is there."""
        self._namespace.run("nft", "delete", "table", *TABLE.split(), check=False)

    def elements(self, name: str) -> list[Element]:
        """Return the sources in a set."""
        return read_elements(self.items(), name)

    def listed(self, name: str) -> set[str]:
        """Return the sources that have knocked, for the name that their list has with xt_recent."""
        return {str(element.source) for element in self.elements(re.sub(r"^pk([46])_", r"open\1_", name))}

    def forget(self) -> None:
        """Forget who has knocked."""
        installed = self.installed()
        names = [name for name in installed.sets if name.startswith("open")] if installed else []
        self.load("".join(f"flush set {TABLE} {name}\n" for name in names))
