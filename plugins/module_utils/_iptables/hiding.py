# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a rule of this host keeps a connection out of connection tracking, or its entry must have been deleted. Reads only."""

from typing import Any, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._errors import PortknockError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import hiding_rule
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import FAMILIES
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked, ports_named
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import family_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Iptables

_SAYS_NOTRACK = ("--notrack", "-j NOTRACK")
_EXPRESSION = b"notrack\0"


def what_hides(host: Any, iptables: Iptables, connection: Connection) -> Optional[str]:
    """Return the rule of either backend that keeps a connection out of connection tracking, with no step in it.

    :param host: a Host.
    :returns: '' where no rule there is says notrack, None where one does and may be the reason, or where that cannot be read.
    """
    ip_version, may_be = family_of(connection.source), False
    try:
        for each in (iptables, iptables.other()):
            save = each.save(ip_version) if each.may_hold(ip_version) else ""
            if any(words in save for words in _SAYS_NOTRACK):
                rule = hiding_rule(parse(save), ((), ()), connection, host.kernel.local_network())
                if rule:
                    # Other ports may be steps of a knock.
                    return masked(rule) if ports_named(rule) - {str(connection.port)} else rule
                may_be = True
        native = iptables.kernel_has_nft() and any(
            _EXPRESSION in body for family in FAMILIES for body in host.nftables.rules(family)
        )
    except PortknockError:
        return None
    return None if may_be or native else ""


__all__ = ("what_hides",)
