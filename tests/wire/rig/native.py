# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules that nft writes into the tables of iptables-nft, and alternatives that are switched, on the target alone."""

import contextlib
from collections.abc import Iterator

from rig.network import Rig
from rig.target import COMMANDS

UNPRINTED = {
    "vmap": ("ct state vmap { established : accept, invalid : drop }",),
    "ct count": ("tcp dport 8443 ct count over 30 drop",),
    "meter": ("tcp dport 8443 meter m { ip saddr limit rate 300/minute } accept",),
    "dscp": ("ip dscp cs1 drop",),
}
"""What iptables-save prints no table for, or only half of one."""
MISPRINTED = {
    "anonymous set": ("ip saddr { 192.0.2.1, 192.0.2.2 } drop",),
    "named set": ("ip saddr @named drop",),
    "range of addresses": ("ip saddr 192.0.2.3-192.0.2.9 drop",),
    "sequence": ("tcp sequence 77 drop",),
    "vmap of ports": ("tcp dport vmap { 8443 : drop }",),
}
"""What it prints as another rule: a set as -j DROP for everybody, a range as its last address, a map as nothing."""


def nft(rig: Rig, *words: str) -> str:
    """Run nft on the target; return what it prints."""
    return rig.target.namespace.run("nft", *words).stdout


def put(rig: Rig, *rules: str) -> None:
    """Append rules to INPUT of iptables' filter table."""
    nft(rig, "add set ip filter named { type ipv4_addr; elements = { 192.0.2.1 }; }")
    for rule in rules:
        nft(rig, "add rule ip filter INPUT " + rule)


def listed(rig: Rig) -> str:
    """Return the filter table of IPv4 as nft lists it, without counters."""
    return nft(rig, "-s", "list", "table", "ip", "filter")


def switch(rig: Rig, backend: str) -> None:
    """Switch the alternatives of the target."""
    for command in COMMANDS.values():
        for tail in ("", "-save", "-restore"):
            path = f"/usr/sbin/{command}-{backend}{tail}"
            rig.target.namespace.run("ln", "-sfn", path, f"/etc/alternatives/{command}{tail}")


@contextlib.contextmanager
def switched(rig: Rig) -> Iterator[None]:
    """Within the block the alternatives are those of the other backend."""
    switch(rig, "legacy" if rig.backend == "nft" else "nft")
    try:
        yield
    finally:
        switch(rig, rig.backend)


def ours_anywhere(rig: Rig) -> list[str]:
    """Return the lines of the collection in both backends and families, and in what nft lists."""
    texts = [rig.target.namespace.run(f"{command}-{backend}-save", check=False).stdout
             for command in COMMANDS.values() for backend in ("nft", "legacy")]  # fmt: skip
    return [line for text in [*texts, nft(rig, "list", "ruleset")] for line in text.splitlines() if "PORTKNOCK" in line]
