# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator should know: foreign rules that lost their effect, and what the doors cannot guard. Pure."""

from typing import Dict, Iterable, List, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import (
    ForeignRules,
    Protected,
    WatchedPackets,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    ACCEPT,
    MAYBE,
    REFUSE,
    Decision,
    Packets,
    Walker,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked, ports_named
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import WIDE, PortIndex, Ports, port_samples

MOST_OF_A_KIND = 20


class Names:
    """Which door or allowed port a port belongs to, in an operator's words; a knock's port stays unnamed."""

    def __init__(self, protected: Protected) -> None:
        """Read the names from a Spec, or from what was read back."""
        self._opened = _Labels((ports, door.name) for door in protected.doors for ports in door.opens)
        self._allowed = _Labels((allow.ports, "") for allow in protected.allow)
        self._knocked = {
            (step.port, step.protocol): door.name for door in protected.doors for step in door.knock + door.close
        }
        self._steps = {port for port, _protocol in self._knocked}

    def names_step(self, text: str) -> bool:
        """Return whether a rule's text names the port of a step, so that it must not be shown as it is."""
        return any(int(number) in self._steps for number in ports_named(text))

    def split(self, packets: Packets) -> Tuple[List[str], List[str], List[str]]:
        """Return (doors that are opened there, doors that are knocked there, allowed ports) for Packets."""
        keys = [(port, "tcp") for port in packets.tcp] + [(port, "udp") for port in packets.udp]
        opened = {label for label in (self._opened.find(*key) for key in keys) if label is not None}
        knocked = {self._knocked[key] for key in keys if key in self._knocked}
        allowed = [
            f"{port}/{protocol}"
            for port, protocol in keys
            if self._allowed.find(port, protocol) is not None and self._opened.find(port, protocol) is None
        ]
        return sorted(opened), sorted(knocked), sorted(allowed)


class _Labels:
    """A label for each of many ports; wide ranges are searched, the rest is looked up."""

    def __init__(self, pairs: Iterable[Tuple[Ports, str]]) -> None:
        self._single: Dict[Tuple[int, str], str] = {}
        wide = []
        for ports, label in pairs:
            if ports.last - ports.first >= WIDE:
                wide.append((ports, label))
            else:
                self._single.update({(port, ports.protocol): label for port in port_samples(ports)})
        self._wide = PortIndex(wide)

    def find(self, port: int, protocol: str) -> Optional[str]:
        found = self._single.get((port, protocol))
        return self._wide.find(Ports(port, port, protocol)) if found is None else found


def ruleset_findings(
    document: Document, protected: Protected, family: str, foreign: ForeignRules, position: int
) -> List[Finding]:
    """Return what the foreign rules of one family give reason to say.

    :param document: the Document of the live ruleset.
    :param foreign: the foreign rules of its filter table.
    :param position: of the doors' hook among them.
    """
    names = Names(protected)
    seen: Set[Finding] = set()
    found = [_lost_effect(item, names, family) for item in foreign.decisions(position)]
    found += _unguarded(document, protected, family, names, foreign.watched)
    unique = []
    for finding in found:
        if finding and finding not in seen:
            seen.add(finding)
            unique.append(finding)
    return _capped(unique)


def _capped(findings: List[Finding]) -> List[Finding]:
    kept: List[Finding] = []
    counts: Dict[str, int] = {}
    for finding in findings:
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        if counts[finding.kind] <= MOST_OF_A_KIND:
            kept.append(finding)
    for kind, count in sorted(counts.items()):
        if count > MOST_OF_A_KIND:
            kept.append(Finding(kind, "", "", f"and {count - MOST_OF_A_KIND} more of this kind."))
    return kept


def _rule_text(decision: Decision, names: Names, knocked: Sequence[str] = ()) -> str:
    """Return a foreign rule for a message, its ports masked if it has to do with a knock.

    A rule may name a step that an earlier rule has decided, so its text is looked at, too.
    """
    text = f"-A {decision.chain} {decision.text.strip()}"
    return masked(text) if knocked or names.names_step(text) else text


def _lost_effect(decision: Decision, names: Names, family: str) -> Optional[Finding]:
    opened, knocked, allowed = names.split(decision.packets)
    if decision.verdict in (ACCEPT, MAYBE) and opened:
        whom = "some sources" if decision.particular else "everyone"
        advice = "Remove the rule if that is no longer wanted"
        if decision.particular:
            advice = "To accept these sources without a knock, name them in trusted_sources"
        text = f"accepts {whom} on ports of {_doors(opened)}; the doors now decide before it, so there it has no effect. {advice}."
        rule = _rule_text(decision, names)
        return Finding("lost_effect", family, rule, text)
    explicit = "port" in decision.text
    if decision.verdict == REFUSE and explicit and (opened or allowed):
        what = _doors(opened) if opened else "allowed ports " + ", ".join(allowed)
        text = f"refuses ports of {what}; these are decided before it now. Remove the rule, or do not open the port."
        return Finding("lost_effect", family, _rule_text(decision, names, knocked), text)
    return None


def _doors(names: List[str]) -> str:
    return ("door " if len(names) == 1 else "doors ") + ", ".join(names)


_BEFORE_INPUT = (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING"), ("mangle", "INPUT"))


def _unguarded(
    document: Document, protected: Protected, family: str, names: Names, watched: WatchedPackets
) -> List[Optional[Finding]]:
    """Return findings about tables that a packet meets before INPUT of filter."""
    found: List[Optional[Finding]] = []
    for table_name, chain in _BEFORE_INPUT:
        table = document.table(table_name)
        if table is None or not table.rules(chain):
            continue
        walker = Walker(table, protected.trusted_interfaces, protected.trusted_sources)
        for packets in (watched.doors, watched.allowed):
            for decision in walker.chain_effect(chain, packets).decisions:
                found.append(_before(decision, table_name, names, family))
    return found


def _before(decision: Decision, table_name: str, names: Names, family: str) -> Optional[Finding]:
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
    verb = "refuses" if decision.verdict == REFUSE else "redirects"
    text = (
        f"table {table_name} {verb} packets to {' and '.join(whose)} before INPUT sees them, so the doors cannot guard or "
        "count them. Remove the port from one of the two, or bind the service to an address of its own."
    )
    rule = _rule_text(decision, names, knocked)
    return Finding("unguarded", family, rule, text)


__all__ = ("MOST_OF_A_KIND", "Names", "masked", "ports_named", "ruleset_findings")
