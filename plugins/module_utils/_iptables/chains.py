# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of the collection's chains, and prefixes of its log lines. Pure."""

import re

HEAD, DOORS, TAIL = "PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"
REFUSE, OPEN, FORGET = "PORTKNOCK_REFUSE", "PORTKNOCK_OPEN", "PORTKNOCK_FORGET"
OPEN_PREFIX, REFUSED_PREFIX = "portknock opened: ", "portknock refused: "
CHAIN = re.compile(r"^PORTKNOCK(_(HEAD|TAIL|REFUSE|OPEN|FORGET|PROBE|[DKR][1-9][0-9]*))?$")
"""D, K, R and a number: chains of door ports, of knock ports, of a range of ports."""

__all__ = ("CHAIN", "DOORS", "FORGET", "HEAD", "OPEN", "OPEN_PREFIX", "REFUSE", "REFUSED_PREFIX", "TAIL")
