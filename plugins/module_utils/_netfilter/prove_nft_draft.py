# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has been read of one rule of nftables: what it asks, and what it does to packets. Pure."""

import re
from typing import Any, Dict, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_asking import Asking
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_match import ask
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    PROTOCOL,
    STATE,
    ListMatch,
    ReadRule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6

_FAMILIES = {"ip": IPV4, "ip6": IPV6}


class Draft:
    """What has been read of a rule so far."""

    def __init__(self, asking: Asking) -> None:
        """Take what has been asked."""
        self.asking = asking
        self.lists: List[ListMatch] = []
        self.target, self.goto = "", False
        self.values: Dict[str, str] = {}
        self.adds = False
        """Whether it puts something into a set."""

    def copy(self) -> "Draft":
        """Return one to go on with apart."""
        copy = Draft(self.asking.copy())
        copy.lists, copy.adds = list(self.lists), self.adds
        return copy

    def asked(self, left: Any, value: Any) -> "Draft":
        """Return a copy that asks for a value besides."""
        copy = self.copy()
        ask(copy.asking, left, "==", value)
        return copy

    def reject(self, kind: str) -> List[ReadRule]:
        """Have it refuse packets, and return the rule for those that an answer of some kind suits.

        That nft asks for those alone, it does not list; what others wrote refuses all.
        """
        self.target = "REJECT"
        family = {"icmp": IPV4, "icmpv6": IPV6}.get(kind, self.asking.family)
        suited = self.copy()
        suited.target = self.target
        if kind == "tcp reset":
            suited.asking.ask(PROTOCOL, "tcp", False)
        elif family == self.asking.family:
            return []
        self.asking.doubt()
        return [suited.line()] if family == self.asking.family else []

    def notrack(self) -> List[ReadRule]:
        """Have it hide packets from connection tracking, if that is yet to see them, and return the rule for it."""
        if self.asking.tracked:
            return []
        hidden = self.copy()
        if self.asking.tracked is None:
            hidden.asking.doubt()
        self.asking.soften(STATE)
        return [hidden.line("NOTRACK")]

    def divert(self, kind: str, what: Any) -> None:
        """Have it send packets elsewhere."""
        fields = what if isinstance(what, dict) else {}
        self.asking.fits(_FAMILIES.get(str(fields.get("family")), self.asking.family) == self.asking.family)
        port, address = fields.get("port"), fields.get("addr")
        ports = "-".join(map(str, port["range"])) if isinstance(port, dict) and "range" in port else port
        known = ports is None or bool(re.match(r"[0-9]+(-[0-9]+)?\Z", str(ports)))
        if kind == "redirect" and known:
            self.target, self.values = "REDIRECT", {} if ports is None else {"--to-ports": str(ports)}
        elif kind == "dnat" and known and isinstance(address, str):
            host = f"[{address}]" if ":" in address and ports is not None else address
            self.target = "DNAT"
            self.values = {"--to-destination": host if ports is None else f"{host}:{ports}"}
        else:
            self.asking.doubt()
            self.target = "NETMAP"

    def line(self, target: str = "", values: Optional[Dict[str, str]] = None) -> ReadRule:
        """Return it as a rule, with a target of its own or another one."""
        asking, own = self.asking, not target
        return ReadRule(
            tuple(asking.terms),
            tuple(asking.doubts),
            tuple(self.lists) if own else tuple(each for each in self.lists if each.verb == "--rcheck"),
            asking.never,
            self.target if own else target,
            self.goto if own else False,
            self.values if own else values or {},
        )


__all__ = ("Draft",)
