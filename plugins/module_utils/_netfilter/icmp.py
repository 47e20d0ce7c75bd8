# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Types of ICMP that a host must let in, whatever else it refuses. Pure."""

NEEDED_ICMPV6 = (1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 141, 142, 143, 148, 149, 151, 152, 153)
"""Types that must not be dropped on a host: errors, multicast listeners, neighbours (RFC 4890, section 4.4)."""

ICMP_ERRORS = (3, 11, 12)
"""Types of ICMP that tell a connection of an error on its way, path MTU among them (RFC 792)."""

__all__ = ("ICMP_ERRORS", "NEEDED_ICMPV6")
