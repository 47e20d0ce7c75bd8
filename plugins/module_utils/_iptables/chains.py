# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of the collection's chains, and prefixes of its log lines. Pure."""

import re

HEAD, DOORS, TAIL = "PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"
REFUSE, OPEN, RELATED = "PORTKNOCK_REFUSE", "PORTKNOCK_OPEN", "PORTKNOCK_RELATED"
CATALOG, CATALOG_STAGES, UNUSED = "PORTKNOCK_CATALOG", "PORTKNOCK_CATALOG_F", "PORTKNOCK_CATALOG_UNUSED"
FORWARD, FORWARD_USER, FORWARD_KNOCK = "PORTKNOCK_FWD", "PORTKNOCK_FWD_USER", "PORTKNOCK_FWD_KNOCK"
FORWARD_OPEN, FORWARD_REFUSE = "PORTKNOCK_FWD_OPEN", "PORTKNOCK_FWD_REFUSE"
DOCKER = "DOCKER-USER"
"""The chain of FORWARD that Docker leaves to others; where it is missing, the collection makes it."""
SENT_ON = ("FORWARD", DOCKER)
"""The chains, hooked by the collection, that packets pass which are sent on."""
OPEN_PREFIX, REFUSED_PREFIX = "portknock opened: ", "portknock refused: "
CHAIN = re.compile(
    r"^PORTKNOCK(_(HEAD|TAIL|REFUSE|OPEN|RELATED|FORGET|PROBE"
    r"|CATALOG([1-9][0-9]*|_F[1-9][0-9]*|_UNUSED)?|[DKR][1-9][0-9]*|FWD(_USER|_KNOCK|_OPEN|_REFUSE)?))?$"
)
"""D, K, R and a number: chains of door ports, of knock ports, of a range of ports. CATALOG and a number: of knocks,
CATALOG_F: of the stages of one. FORGET is one of release 1.0.0."""

__all__ = (
    "CATALOG", "CATALOG_STAGES", "CHAIN", "DOCKER", "DOORS", "FORWARD", "FORWARD_KNOCK", "FORWARD_OPEN", "FORWARD_REFUSE",
    "FORWARD_USER", "HEAD", "OPEN", "OPEN_PREFIX", "REFUSE", "REFUSED_PREFIX", "RELATED", "SENT_ON", "TAIL",
    "UNUSED",
)  # fmt: skip
