# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of a rule in the spelling of iptables-save. Pure."""

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import multiport_text

SYN = "--tcp-flags FIN,SYN,RST,ACK SYN"

LOG_LIMIT = "-m limit --limit 10/min"


def of_family(networks, family):
    return [network for network in networks if family_of(network) == family]


def source_match(network):
    """Return the source match; iptables-save prints none for the whole internet and always a prefix length."""
    return "" if network.prefixlen == 0 else "-s {0}".format(network)


def joined(*parts):
    return " ".join(part for part in parts if part)


def multiport_match(protocol, group, new=False):
    syn = "-m tcp {0} ".format(SYN) if new and protocol == "tcp" else ""
    return "-p {0} {1}-m multiport --dports {2}".format(protocol, syn, multiport_text(group))


def knockers(door, family):
    """Return the source matches of those who may knock: one empty match for everyone."""
    if not door.sources:
        return [""]
    return [source_match(network) for network in of_family(door.sources, family)]


__all__ = (
    "LOG_LIMIT",
    "SYN",
    "joined",
    "knockers",
    "multiport_match",
    "of_family",
    "source_match",
)
