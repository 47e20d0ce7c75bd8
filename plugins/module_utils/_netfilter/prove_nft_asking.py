# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rule of nftables asks of packets, put together piece by piece; and how packets are seen that nat may change. Pure."""

from types import MappingProxyType
from typing import Any, List, Mapping, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import PROTOCOL, Term
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6, PROTOCOLS

NETWORKS = {"ip": IPV4, "ip6": IPV6, "ipv4": IPV4, "ipv6": IPV6, 2: IPV4, 10: IPV6, 0x800: IPV4, 0x86DD: IPV6}
"""What stands for a version of IP."""
_OTHERS = frozenset(("icmp", "icmpv6", "igmp", "sctp", "dccp", "udplite", "esp", "ah", "comp", "gre"))
_NONE = frozenset(("arp", "vlan", "ether", "8021q", "8021ad"))

View = Mapping[str, str]
"""The name of a field to the one that it is taken for; '' for one of which nothing is known."""
ARRIVING: View = MappingProxyType({"ct original proto-dst": "first dport"})
"""Of packets to this host."""
_UNKNOWN_PORTS = {f"{name} dport": "" for name in ("tcp", "udp", "th")}
_FIRST_HOSTS = {f"ct original {name} daddr": f"{name} daddr" for name in ("ip", "ip6")}
PLAIN: View = MappingProxyType({"ct original proto-dst": "th dport", **_FIRST_HOSTS})
"""Of packets that this host sends on and nat leaves as they are."""
BY_HOST: View = MappingProxyType({"ct original proto-dst": "th dport", **_UNKNOWN_PORTS})
"""Of those that nat sends elsewhere: by the port that they were sent to, and the host that they go to."""
BY_FIRST_HOST: View = MappingProxyType({**BY_HOST, **_FIRST_HOSTS, "ip daddr": "", "ip6 daddr": ""})
"""Of the same: by the port and the host that they were sent to."""


class Asking:
    """What a rule asks of packets of one family, as far as it has been read."""

    def __init__(self, family: str, view: View = ARRIVING, tracked: Optional[bool] = True) -> None:
        """Take ``ipv4`` or ``ipv6``, and how fields are seen that nat may change.

        :param tracked: whether connection tracking has seen the packets, None where it may have or not.
        """
        self.family, self.view, self.tracked = family, view, tracked
        self.terms: List[Term] = []
        self.doubts: List[str] = []
        self.never = False

    def copy(self) -> "Asking":
        """Return one to go on with apart."""
        copy = Asking(self.family, self.view, self.tracked)
        copy.terms, copy.doubts, copy.never = list(self.terms), list(self.doubts), self.never
        return copy

    def doubt(self) -> None:
        """Have it ask what is not understood, so that a packet may meet it or not."""
        self.doubts.append("a match")

    def fits(self, fits: bool) -> None:
        """Have it ask what all packets in question meet, or none does."""
        self.never = self.never or not fits

    def ask(self, kind: str, data: Any, negated: bool) -> None:
        """Have it ask for a Term."""
        self.terms.append(Term(kind, data, negated))

    def soften(self, kind: str, first: int = 0) -> None:
        """Have it doubt what it asked of one thing, for a rule has changed that meanwhile.

        :param first: how many of its terms were asked for before that.
        """
        kept = [term for number, term in enumerate(self.terms) if term.kind != kind or number < first]
        if len(kept) < len(self.terms):
            self.terms = kept
            self.doubt()

    def family_of(self, expression: Any) -> None:
        """Have it ask for the protocols whose fields an expression looks at."""
        for protocol in _protocols_in(expression):
            if protocol in ("ip", "ip6"):
                self.fits(NETWORKS[protocol] == self.family)
            elif protocol in PROTOCOLS:
                self.ask(PROTOCOL, protocol, False)
            elif protocol in _OTHERS or protocol in _NONE:
                self.fits(protocol == "ether")

    def unknown(self, expression: Any) -> None:
        """Have it ask something of an expression that is not understood."""
        self.family_of(expression)
        self.doubt()


def _protocols_in(expression: Any) -> List[str]:
    if isinstance(expression, list):
        return [found for each in expression for found in _protocols_in(each)]
    if not isinstance(expression, dict):
        return []
    payload = expression.get("payload")
    if isinstance(payload, dict):
        # Within a tunnel it is another packet's.
        return [str(payload.get("protocol", ""))] if "tunnel" not in payload else []
    tracked = expression.get("ct")
    if isinstance(tracked, dict) and " " in str(tracked.get("key")):
        return [tracked["key"].split()[0]]
    return [found for each in expression.values() for found in _protocols_in(each)]


__all__ = ("ARRIVING", "BY_FIRST_HOST", "BY_HOST", "NETWORKS", "PLAIN", "Asking", "View")
