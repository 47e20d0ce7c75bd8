# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of the collection's chains in iptables' tables, and prefixes of its log lines. Pure."""

import re

HEAD, DOORS, TAIL = "PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"
REFUSE, OPEN, RELATED = "PORTKNOCK_REFUSE", "PORTKNOCK_OPEN", "PORTKNOCK_RELATED"
CATALOG, CATALOG_STAGES, UNUSED = "PORTKNOCK_CATALOG", "PORTKNOCK_CATALOG_F", "PORTKNOCK_CATALOG_UNUSED"
FORWARD, FORWARD_USER, FORWARD_KNOCK = "PORTKNOCK_FWD", "PORTKNOCK_FWD_USER", "PORTKNOCK_FWD_KNOCK"
FORWARD_OPEN, FORWARD_REFUSE = "PORTKNOCK_FWD_OPEN", "PORTKNOCK_FWD_REFUSE"
BY_NAT, BY_NAT_SENT = "PORTKNOCK_NAT", "PORTKNOCK_NAT_SENT"
"""In table nat: for packets to this host before nat, and for those that it has changed."""
PREROUTING, POSTROUTING = "PREROUTING", "POSTROUTING"
"""The chains of table nat that are hooked by the collection."""
FILTER, NAT = "filter", "nat"
"""The tables that hold chains of the collection."""
DOCKER = "DOCKER-USER"
"""The chain of FORWARD that Docker leaves to others; where it is missing, the collection makes it."""
SENT_ON = ("FORWARD", DOCKER)
"""The chains, hooked by the collection, that packets pass which are sent on."""
OPEN_PREFIX, REFUSED_PREFIX = "portknock opened: ", "portknock refused: "
CHAIN = re.compile(
    r"^PORTKNOCK(_(HEAD|TAIL|REFUSE|OPEN|RELATED|FORGET|PROBE"
    r"|CATALOG([1-9][0-9]*|_F[1-9][0-9]*|_UNUSED)?|[DKR][1-9][0-9]*|FWD(_USER|_KNOCK|_OPEN|_REFUSE|[1-9][0-9]*)?|NAT(_SENT|[1-9][0-9]*)?))?$"
)
"""D, K, R and a number: chains of door ports, of knock ports, of a range of ports. CATALOG and a number: of knocks,
CATALOG_F: of the stages of one. FWD and a number: of a range of published ports. NAT and a number: of
published ports, in table nat. FORGET is one of release 1.0.0."""


def table_of(chain: str) -> str:
    """Return the table of a chain that is the collection's, or that is hooked by it."""
    return NAT if chain in (PREROUTING, POSTROUTING) or chain.startswith(BY_NAT) else FILTER


__all__ = (
    "BY_NAT", "BY_NAT_SENT", "CATALOG", "CATALOG_STAGES", "CHAIN", "DOCKER", "DOORS", "FILTER", "FORWARD", "FORWARD_KNOCK",
    "FORWARD_OPEN", "FORWARD_REFUSE", "FORWARD_USER", "HEAD", "NAT", "OPEN", "OPEN_PREFIX", "POSTROUTING", "PREROUTING",
    "REFUSE", "REFUSED_PREFIX", "RELATED", "SENT_ON", "TAIL", "UNUSED", "table_of",
)  # fmt: skip
