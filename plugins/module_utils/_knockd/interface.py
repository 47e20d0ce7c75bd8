# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one interface that knockd listens on. Pure."""

from typing import Collection, Dict, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork, read_routes
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES


def default_interfaces(route: str, ipv6_route: str) -> Dict[str, str]:
    """Return family to the interface of its default route, as far as there is one.

    :param route: the text of /proc/net/route.
    :param ipv6_route: the text of /proc/net/ipv6_route.
    """
    local = LocalNetwork(routes=read_routes(route, ipv6_route))
    found = {family: local.outside(family) for family in FAMILIES}
    return {family: interfaces[0] for family, interfaces in found.items() if interfaces}


def choose_interface(wanted: str, known: Collection[str], defaults: Dict[str, str], families: Sequence[str]) -> str:
    """Return the interface to listen on.

    :param wanted: the option, '' for none.
    :param known: the names of the host's interfaces.
    :param defaults: what default_interfaces() returns.
    :param families: those that are managed.
    :raises SpecError: if it is not there, or if nothing says which one it is.
    """
    others = ", ".join(sorted(name for name in known if name != "lo"))
    if wanted:
        if wanted not in known:
            raise SpecError("knockd_interface", f"this host has no interface {wanted}. It has {others}.")
        return wanted
    found = sorted({defaults[family] for family in families if family in defaults})
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError(
            "knockd_interface",
            "the default routes of IPv4 and IPv6 leave by different interfaces ({0}), and knockd listens on one. Name the one "
            "that knocks come in by.".format(", ".join(found)),
        )
    raise SpecError(
        "knockd_interface",
        f"this host has no default route to tell the interface by. Name the one that knocks come in by: {others}.",
    )


__all__ = ("choose_interface", "default_interfaces")
