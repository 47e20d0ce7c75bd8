# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on a host of our ruleset: doors, who has them open, counters, drift, findings. Reads only."""

import json
from typing import Any, Dict, Iterable, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._boot.loaders import UNKEPT, gone, loaders_in_use
from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    Finding,
    Report,
    Wanted,
    connection_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.findings import Hooked, ruleset_findings
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import ForeignRules, Protected
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.listeners import nothing_listens
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.native_findings import findings_beside
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.protocols import protocol_findings
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.published import policy_is_in_force
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    position_of,
    read_state,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.kept import standing_findings
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.only_at_boot import only_at_boot
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import layout_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.prove_doors import lists_in, prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.read_back import (
    counters,
    drift,
    expected_rules,
    refusals,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import DOORS, FILTER, NAT, TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.recent_lists import (
    guess_hertz,
    read_list,
    seconds_left,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table, parse
from ansible_collections.sesame.portknock.plugins.module_utils._paths import DIRECTORY, IPTABLES, OS_RELEASE, STATE_FILE
from ansible_collections.sesame.portknock.plugins.module_utils._proof.doors import void_findings
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    ENGINES,
    IPV4,
    PUBLISHED_DOORS,
    PUBLISHED_NONE,
    PUBLISHED_POLICY,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import ports_name
from ansible_collections.sesame.portknock.plugins.module_utils._spec.words import networks
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Iptables, own_lines
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import read_installed
from ansible_collections.sesame.portknock.plugins.module_utils._tables.native import NOTHING, Listing, Native
from ansible_collections.sesame.portknock.plugins.module_utils._tables.reading import (
    other_save,
    read_native,
    read_saves,
)

PART = "ruleset"


def inspect_ruleset(host: Any, iptables: Iptables, report: Report) -> Report:
    """Return a Report with what there is to say of the ruleset.

    :param host: a Host.
    :raises HostError: if the ruleset cannot be read.
    """
    families = [family for family in host.kernel.families() if iptables.installed(family)]
    none = dict(ip_versions=[], published=PUBLISHED_NONE, refused=0, wrong_knocks=0, lists=[], proof=[])
    backend = iptables.backend if families else ""
    # Where the doors are in a table of nftables, that has said all this already.
    report = report._replace(facts=dict(dict(none, backend=backend), **report.facts))
    now, native = _Now(host), Native(host.command.run, host.command.find, host.nftables.chains)
    listing = read_native(iptables, native) if families else NOTHING
    saves = read_saves(iptables, host.nftables, tuple(families), counters=True)
    for family in families:
        other, save = iptables.other(), saves[family]
        elsewhere = other_save(other, native, family, counters=True)
        first = other.first_rule(family, elsewhere)
        if first:
            report = report._replace(findings=report.findings + [_other_backend(family, first)])
            # Where ours are only in the other one, the alternative was switched since: they are in force all the same.
            save = elsewhere if own_lines(elsewhere) and not own_lines(save) else save
        report = _inspect_family(family, save, host, now, report)
    found = _beside(iptables, listing, saves) + _standing(host, report.wanted, saves)
    return report._replace(findings=report.findings + found)


def _standing(host: Any, wanted: Optional[Wanted], saves: Dict[str, str]) -> List[Finding]:
    """Return what the options and the host give reason to say, as a run of the module does."""
    if wanted is None or not ENGINES[wanted.spec.engine].uses_iptables:
        return []
    found = standing_findings(host, wanted, loaders_in_use(host))
    sockets = host.sockets.listening()
    documents = {family: parse(saves[family]) for family in wanted.families if family in saves}
    found += nothing_listens(tuple(documents.values()), wanted.spec, sockets) if sockets else []
    return found + protocol_findings(host.protocols.in_use(), wanted.spec, documents, host.kernel.local_network())


def _beside(iptables: Iptables, listing: Listing, saves: Dict[str, str]) -> List[Finding]:
    """Return findings about what decides on packets beside these tables; nothing where they hold no door."""
    found: List[Finding] = []
    for family, save in saves.items():
        live = read_state(parse(save)) if "PORTKNOCK" in save else ABSENT
        if live != ABSENT:
            found += findings_beside(iptables, listing, read_installed(live.chains), (family,))
    return found


class _Now:
    """The lists of the kernel as they are at one moment."""

    def __init__(self, host: Any) -> None:
        self.lists = {name: read_list(text) for name, text in host.recent_lists.read().items()}
        self.uptime = host.clock.monotonic()
        self.hertz = guess_hertz([entry for entries in self.lists.values() for entry in entries], self.uptime)
        self.size = host.kernel.parameter("xt_recent", "ip_list_tot") or 0

    def open_for(self, door: Any, family: str) -> Dict[str, int]:
        entries = [
            entry for name, entries in self.lists.items() if _is_list_of(name, door, family) for entry in entries
        ]
        return seconds_left(entries, door.window, self.uptime, self.hertz) if self.hertz else {}

    def fill(self, doors: Iterable[Any], family: str) -> List[Dict[str, Any]]:
        """Return how full the list of each door is; for the name '' that of the sources in the middle of a knock."""
        names = {door.name: door.name for door in doors}
        names.update({"": ".1"} if any(len(door.knock) > 1 for door in doors) else {})
        return [
            dict(
                door=door, ip_version=family, size=self.size,
                entries=sum(len(found) for name, found in self.lists.items() if _is_list(name, rest, family)),
            )
            for door, rest in names.items()
        ]  # fmt: skip


def _is_list_of(name: str, door: Any, family: str) -> bool:
    return _is_list(name, door.name, family)


def _is_list(name: str, wanted: str, family: str) -> bool:
    prefix, _underscore, rest = name.partition("_")
    return rest == wanted and prefix.startswith("pk4" if family == IPV4 else "pk6")


def _other_backend(family: str, other: str) -> Finding:
    message = (
        "the other backend of iptables holds rules as well, and a packet must pass both. Remove them or switch the "
        "alternative."
    )
    if "PORTKNOCK" in other:
        message = (
            "the collection's own rules are in the other backend of iptables, from before the alternative was switched, and they are "
            "in force there. Switch it back, or take them out with 'state: absent', which looks at both, and apply again."
        )
    return Finding("other_backend", family, other, message)


def _inspect_family(family: str, save: str, host: Any, now: _Now, report: Report) -> Report:
    document = parse(save, f"the live {family} ruleset")
    table = document.table(FILTER) or Table(FILTER, 0)
    live = read_state(document)
    kept = host.filesystem.read(f"{DIRECTORY}/{IPTABLES[family]}.rules")
    own = expected_rules(kept, live)
    if own is None and live == ABSENT:
        remembered = json.loads(host.filesystem.read(STATE_FILE) or "{}").get(UNKEPT, {})
        return report._replace(findings=report.findings + gone(family, remembered))
    spec = read_installed(own.chains if own else live.chains)
    alive = read_installed(live.chains)
    # Rules that let in who has knocked, and none that counts a knock: something else does.
    recognises = not (alive.doors and not any(door.knock for door in alive.doors))
    hooked = Hooked(position_of(live, DOORS) or 0, position_of(live, TAIL))
    local = host.kernel.local_network()
    foreign = ruleset_findings(document, spec, family, ForeignRules(document, spec), hooked, local)
    foreign += _at_boot(host, family, document, spec) if kept else []
    ours = own.chains if own else live.chains
    connection = None if spec.panic else connection_of(host.processes.ssh_connection())
    proofs = prove_doors(document, family, spec, lists_in(ours), local, spec.panic, TAIL in ours, connection)
    entries = [dict(proof.entry, ruleset="live") for proof in proofs]
    steps = {door.name: len(door.knock) for door in spec.doors if door.knock}
    facts = dict(
        _counted_facts(report.facts, table, recognises), lists=report.facts["lists"] + now.fill(alive.doors, family)
    )
    return report._replace(
        installed=dict(report.installed, **{PART: recognises}),
        doors=report.doors + _doors(alive, family, counters(table, document.table(NAT)), now),
        steps=dict(report.steps, **steps),
        drift=report.drift + [f"{family}: {line}" for line in drift(document, own, spec, family, local)],
        findings=report.findings + foreign + void_findings(proofs),
        facts=dict(
            facts,
            published=_published(spec, ours, report.facts["published"]),
            ip_versions=report.facts["ip_versions"] + [family],
            proof=report.facts["proof"] + entries,
        ),
    )


def _published(spec: Any, ours: Any, before: str) -> str:
    """Return how what nat sends on is guarded, as the option says it, with one more family."""
    if policy_is_in_force(ours):
        return PUBLISHED_POLICY
    return PUBLISHED_DOORS if spec.guards_published and before == PUBLISHED_NONE else before


def _at_boot(host: Any, family: str, live: Document, protected: Protected) -> List[Finding]:
    """Return findings about the rules file; nothing where it is not known, or cannot be followed."""
    try:
        path = layout_of(host.filesystem.read(OS_RELEASE)).rules[family]
        return only_at_boot(path, host.filesystem.read(path), family, live, protected)
    except HostError:
        return []


def _counted_facts(facts: Dict[str, Any], table: Any, recognises: bool) -> Dict[str, Any]:
    """Return facts with what one more family has counted; wrong knocks where the kernel recognises knocks at all, else None."""
    found = refusals(table)
    wrong = facts["wrong_knocks"] + found["wrong_knocks"] if recognises and facts["wrong_knocks"] is not None else None
    return dict(facts, refused=facts["refused"] + found["refused"], wrong_knocks=wrong)


def _doors(spec: Any, family: str, counted: Dict[str, Dict[str, int]], now: _Now) -> List[Dict[str, Any]]:
    return [
        dict(
            name=door.name,
            ip_version=family,
            opens=[ports_name(ports) for ports in door.opens],
            steps=len(door.knock),
            window=door.window,
            open_for=now.open_for(door, family),
            **({"to": networks(door.to)} if door.to else {}),
            **_counted(door, counted.get(door.name)),
        )
        for door in spec.doors
    ]


def _counted(door: Any, found: Optional[Dict[str, int]]) -> Dict[str, int]:
    """Return the door's counters; the kernel counts no knocks that it does not recognise itself."""
    found = found or dict(let_in=0, knocked=0)
    return {what: packets for what, packets in found.items() if door.knock or what != "knocked"}


__all__ = ("inspect_ruleset",)
