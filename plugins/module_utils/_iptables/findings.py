# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator should know: foreign rules that lost their effect, and what our rules cannot guard. Pure."""

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    ACCEPT,
    MAYBE,
    REFUSE,
    Walker,
)
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked, ports_named
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import WIDE, PortIndex, Ports, port_samples

MOST_OF_A_KIND = 20


class Names:
    """Which door or allowed port a port belongs to, in an operator's words; a knock's port stays unnamed."""

    def __init__(self, spec):
        """Read the names from a Spec."""
        self._opened = _Labels((ports, door.name) for door in spec.doors for ports in door.opens)
        self._allowed = _Labels((allow.ports, "") for allow in spec.allow)
        self._knocked = {
            (step.port, step.protocol): door.name for door in spec.doors for step in door.knock + door.close
        }
        self._steps = {port for port, _protocol in self._knocked}

    def names_step(self, text):
        """Return whether a rule's text names the port of a step, so that it must not be shown as it is."""
        return any(int(number) in self._steps for number in ports_named(text))

    def split(self, packets):
        """Return (doors that are opened there, doors that are knocked there, allowed ports) for Packets."""
        keys = [(port, "tcp") for port in packets.tcp] + [(port, "udp") for port in packets.udp]
        opened = {self._opened.find(*key) for key in keys} - {None}
        knocked = {self._knocked.get(key) for key in keys} - {None}
        allowed = [
            "{0}/{1}".format(*key)
            for key in keys
            if self._allowed.find(*key) is not None and self._opened.find(*key) is None
        ]
        return sorted(opened), sorted(knocked), sorted(allowed)


class _Labels:
    """A label for each of many ports; wide ranges are searched, the rest is looked up."""

    def __init__(self, pairs):
        self._single, wide = {}, []
        for ports, label in pairs:
            if ports.last - ports.first >= WIDE:
                wide.append((ports, label))
            else:
                self._single.update({(port, ports.protocol): label for port in port_samples(ports)})
        self._wide = PortIndex(wide)

    def find(self, port, protocol):
        found = self._single.get((port, protocol))
        return self._wide.find(Ports(port, port, protocol)) if found is None else found


def ruleset_findings(document, spec, family, ground, place):
    """Return what the foreign rules of one family give reason to say.

    :param document: the Document of the live ruleset.
    :param ground: the Ground of its filter table.
    :param place: of the doors' hook among the foreign rules.
    """
    names = Names(spec)
    seen = set()
    found = [_lost_effect(item, names, family) for item in ground.decisions(place)]
    found += _unguarded(document, spec, family, names, ground.interest)
    unique = []
    for finding in found:
        if finding and finding not in seen:
            seen.add(finding)
            unique.append(finding)
    return _capped(unique)


def _capped(findings):
    kept, counts = [], {}
    for finding in findings:
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        if counts[finding.kind] <= MOST_OF_A_KIND:
            kept.append(finding)
    for kind, count in sorted(counts.items()):
        if count > MOST_OF_A_KIND:
            kept.append(Finding(kind, "", "", "and {0} more of this kind.".format(count - MOST_OF_A_KIND)))
    return kept


def _rule_text(decision, names, knocked=()):
    """Return a foreign rule for a message, its ports masked if it has to do with a knock.

    A rule may name a step that an earlier rule has decided, so its text is looked at, too.
    """
    text = "-A {0} {1}".format(decision.chain, decision.text.strip())
    return masked(text) if knocked or names.names_step(text) else text


def _lost_effect(decision, names, family):
    opened, knocked, allowed = names.split(decision.packets)
    if decision.verdict in (ACCEPT, MAYBE) and opened:
        whom = "some sources" if decision.particular else "everyone"
        advice = "Take the rule out if that is no longer wanted"
        if decision.particular:
            advice = "To let these sources in without a knock, name them in trusted_sources"
        text = "lets {0} in to ports of {1}; the doors now decide before it, so it lets nobody in there. {2}."
        rule = _rule_text(decision, names)
        return Finding("lost_effect", family, rule, text.format(whom, _doors(opened), advice))
    explicit = "port" in decision.text
    if decision.verdict == REFUSE and explicit and (opened or allowed):
        what = _doors(opened) if opened else "allowed ports " + ", ".join(allowed)
        text = "refuses ports of {0}; these are decided before it now. Take the rule out, or the port out of what is opened."
        return Finding("lost_effect", family, _rule_text(decision, names, knocked), text.format(what))
    return None


def _doors(names):
    return ("door " if len(names) == 1 else "doors ") + ", ".join(names)


_BEFORE_INPUT = (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING"), ("mangle", "INPUT"))


def _unguarded(document, spec, family, names, interest):
    """Return findings about tables that a packet meets before INPUT of filter."""
    found = []
    for table_name, chain in _BEFORE_INPUT:
        table = document.table(table_name)
        if table is None or not table.rules(chain):
            continue
        walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources)
        for packets in (interest.doors, interest.allowed):
            for decision in walker.chain_effect(chain, packets).decisions:
                found.append(_before(decision, table_name, names, family))
    return found


def _before(decision, table_name, names, family):
    if decision.verdict == ACCEPT or (decision.verdict == REFUSE and decision.particular):
        return None
    opened, knocked, allowed = names.split(decision.packets)
    if not opened and not knocked and not allowed:
        return None
    whose = [
        text
        for text in (
            _doors(opened) if opened else "",
            "knocks of " + _doors(knocked) if knocked else "",
            "allowed ports " + ", ".join(allowed) if allowed else "",
        )
        if text
    ]
    verb = "refuses" if decision.verdict == REFUSE else "sends elsewhere"
    text = (
        "table {0} {1} packets to {2} before INPUT sees them, so the doors cannot guard or count them. "
        "Take the port out of one of the two, or bind the service to an address of its own."
    )
    rule = _rule_text(decision, names, knocked)
    return Finding("unguarded", family, rule, text.format(table_name, verb, " and ".join(whose)))


__all__ = ("MOST_OF_A_KIND", "Names", "masked", "ports_named", "ruleset_findings")
