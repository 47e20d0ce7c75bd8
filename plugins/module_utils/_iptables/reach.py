# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which programs that listen a change of the ruleset in iptables keeps from being reached. Pure."""

from typing import Any, Mapping, Sequence, Set

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.listeners import (
    Listeners,
    Reach,
    accepted,
    diverted,
    look_at_reach,
    reached_now,
    served,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.protocols import may_accept
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.published import (
    policy_is_in_force,
    published_ports,
    sent_on,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import position_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import Port
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules


def look_at_listeners(sockets: Any, wanted: Wanted, plans: Sequence[Plan], local: LocalNetwork) -> Listeners:
    """Return what there is to say of the programs that listen, for plans of all IP versions.

    :param sockets: the Sockets of the host.
    """
    spec = wanted.spec
    if spec is None:
        return Listeners([], ())
    return look_at_reach(
        sockets, wanted, [_reach(plan, spec, local) for plan in plans if plan.family in wanted.families], local
    )


def _reach(plan: Plan, spec: Spec, local: LocalNetwork) -> Reach:
    table = plan.document.table("filter")
    trusted = spec.trusted_interfaces, spec.trusted_sources

    def refused(ports: Set[Port], chains: Mapping[str, Sequence[str]]) -> Set[Port]:
        """Return those ports that are published and that the policy refuses, with these chains of ours."""
        return sent_on(plan.document, ports, local.own, trusted) if policy_is_in_force(chains) else set()

    closes = policy_is_in_force(plan.then.chains) and not policy_is_in_force(plan.now.chains)
    found = published_ports(plan.document, local.own, trusted) if closes else []
    return Reach(
        plan.family,
        bool(plan.change),
        lambda ports: reached_now(plan.document, spec, ports) - refused(ports, plan.now.chains),
        lambda ports: _reached(plan, spec, ports) - (refused(ports, plan.then.chains) - served(spec, ports)),
        lambda ports: diverted(plan.document, spec, ports),
        lambda protocol: may_accept(table, protocol),
        [each for each in found if (each.port, each.protocol) not in served(spec, {(each.port, each.protocol)})],
    )


def _reached(plan: Plan, spec: Spec, keys: Set[Port]) -> Set[Port]:
    """Return the ports that can be reached from outside once a plan is carried out, be it with a knock."""
    found = served(spec, keys) | diverted(plan.document, spec, keys)
    tail = position_of(plan.then, TAIL)
    rules = foreign_rules(plan.document.table("filter"))
    return found | accepted(plan.document, spec, rules[:tail], keys - found, otherwise=tail is None)


__all__ = ("look_at_listeners",)
