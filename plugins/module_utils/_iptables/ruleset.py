# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of an engine that is a ruleset of iptables: planned, loaded and undone for all IP versions as one.

It lets in who is on a door's list. Where it recognises knocks as well, its rules also put sources on the lists.

What only a change, an undo or a look needs is imported there: most runs change nothing, and Python compiles anew what it
imports from a module's zip file.
"""

import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._boot.loaders import UNKEPT, drop_in_folders, unkept
from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    EXACT,
    Connection,
    Finding,
    Loaded,
    Part,
    PartPlan,
    Report,
    Wanted,
    worst,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import (
    check_of_this_host,
    check_tracked,
    door_for,
    lets_in,
    shut_out,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.native_findings import findings_beside
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.protocols import protocol_findings
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules, build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import ABSENT, position_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.kept import (
    Kept,
    boot_texts,
    check_kept,
    kept_findings,
    plan_kept,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.last_way import last_look, last_way
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan, plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.reach import look_at_listeners
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.spelling import (
    SPELLING,
    known_spelling,
    spelling_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN, LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.recent_lists import network_of
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import OpenDoors
from ansible_collections.sesame.portknock.plugins.module_utils._paths import MODPROBE
from ansible_collections.sesame.portknock.plugins.module_utils._proof.change import NOTHING_PROVEN, Proven
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import (
    NFT,
    Commands,
    Iptables,
    UnreadableError,
    own_lines,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.native import Native
from ansible_collections.sesame.portknock.plugins.module_utils._tables.readable import readable_file
from ansible_collections.sesame.portknock.plugins.module_utils._tables.reading import (
    check_commands,
    check_writable,
    read_native,
    read_other_backend,
    read_saves,
    why_not_in_force,
)


class Details(NamedTuple):
    """What a plan of the ruleset holds for itself."""

    plans: Tuple[Plan, ...]
    """The plan of each IP version."""
    elsewhere: Tuple[Plan, ...]
    """Those for the other backend, where ours are to go and some are there."""
    owns: Dict[str, Any]
    """IP version to the rules that are to be there."""


class Ruleset(Part):
    """The ruleset of this host."""

    name = "ruleset"

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self._iptables = self._with(None)

    def _with(self, commands: Optional[Commands]) -> Iptables:
        return Iptables(self._host.command.run, self._host.command.find, self._host.filesystem.read, commands)

    def import_late(self) -> None:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables import (  # noqa: F401
            hiding,
            inspect,
            load,
            open_doors,
            proven,
            take_back,
        )

    # Planning

    def plan(self, wanted: Wanted) -> PartPlan:
        iptables, installed = self._iptables, self._iptables.installed(IPV4)
        check_commands(iptables, wanted, installed)
        present, absent, native = self._host.kernel.families(), wanted.spec is None, _native(self._host)
        saves = read_saves(iptables, self._host.nftables, present, absent) if installed else {}
        others = read_other_backend(iptables, native, wanted, tuple(saves)) if installed else {}
        owns = _built(iptables if installed else None, wanted, saves)
        texts = saves or dict.fromkeys(present, "")
        local = _local_network(self._host, wanted)
        plans = tuple(known_spelling(_plan(wanted, owns, *item, local), wanted.state) for item in texts.items())
        elsewhere = tuple(plan_family(save, None, family) for family, save in others.items())
        door = _door_of(wanted, plans, local)
        kept = plan_kept(self._host, wanted, owns)
        loads = any(plan.change for plan in plans + elsewhere)
        check_writable(iptables, self._host.nftables, [plan.family for plan in plans if installed and plan.change])
        persists = wanted.persist and wanted.spec is not None
        if persists and installed:
            check_kept(self._host, iptables, wanted, owns, kept, loads)
        proven = _prove(self._host, wanted, plans, kept, local)
        listeners = look_at_listeners(self._host.sockets, wanted, plans, local)
        return PartPlan(
            part=self.name,
            wanted=wanted,
            loads=loads,
            begins=any(plan.change and plan.now == ABSENT for plan in plans),
            files=kept.files,
            early=(MODPROBE,),
            previous=tuple(kept.rules_files.values()) if persists else (),
            saved_to=tuple(kept.rules_files.values()),
            last_way=last_way(plans, iptables.commands.paths) if installed else (),
            last_look=last_look(plans, iptables.commands.paths) if installed else (),
            door=door,
            findings=self._findings(wanted, plans, kept, local) + listeners.findings + proven.findings,
            facts=dict(backend=iptables.backend if installed else NFT, closes=listeners.closes, proof=proven.words),
            before=_before(iptables if installed else None, (plans, saves), (elsewhere, others), kept),
            details=Details(plans, elsewhere, owns),
            remembered=proven.remembered,
        )

    def _findings(
        self, wanted: Wanted, plans: Tuple[Plan, ...], kept: Kept, local: LocalNetwork
    ) -> Tuple[Finding, ...]:
        if wanted.spec is None:
            return ()
        found = [finding for plan in plans for finding in plan.findings]
        if self._iptables.installed(IPV4):
            listing = read_native(self._iptables, _native(self._host))
            found += findings_beside(self._iptables, listing, wanted.spec, wanted.families)
        documents = {plan.family: plan.document for plan in plans if plan.family in wanted.families}
        found += protocol_findings(self._host.protocols.in_use(), wanted.spec, documents, local)
        return tuple(found + kept_findings(self._host, wanted, plans, kept))

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:
        parts = []
        for each in plan.details.plans:
            if each.change:
                header = f"{each.family} ruleset in the kernel"
                parts.append(dict(before_header=header, after_header=header, before=each.before(), after=each.after()))
        return parts

    def readable(self, path: str, text: str) -> str:  # noqa: ARG002
        return readable_file(text)

    # Changing

    def load(self, plan: PartPlan) -> Loaded:
        wanted, details = plan.wanted, plan.details

        def replan(family: str, save: str) -> Plan:
            return _plan(wanted, details.owns, family, save)

        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.load import apply_plans

        other = self._iptables.other()
        elsewhere = apply_plans(other, details.elsewhere, replan) if details.elsewhere else {}
        loaded = apply_plans(self._iptables, details.plans, replan)
        if wanted.spec is not None:
            self._host.recent_lists.hide()
        expected = {
            iptables.backend: {family: own_lines(one.save) for family, one in done.items()}
            for iptables, done in ((self._iptables, loaded), (other, elsewhere))
        }
        remembered = {SPELLING: spelling_of(wanted.state, loaded), UNKEPT: unkept(wanted)}
        return Loaded(expected, remembered)

    def forget(self, plan: PartPlan, door: str, source: Any) -> None:
        spec = plan.wanted.spec
        lists = Lists(family_of(source), spec.ipv6_prefix)
        named = next(each for each in spec.doors if each.name == door)
        self._host.recent_lists.forget(lists.door(named), network_of(source, spec.ipv6_prefix))

    def problem(self, before: Dict[str, Any], expected: Dict[str, Any]) -> str:
        if not any(expected.values()):
            return ""
        if before["backends"][0]["commands"]["backend"] != self._iptables.plain_backend():
            return "the alternative of iptables was switched to the other backend before it was confirmed"
        for way in before["backends"]:
            commands = Commands(**way["commands"])
            for family, lines in expected[commands.backend].items():
                try:
                    now = own_lines(self._with(commands).save(family))
                except UnreadableError as error:
                    return str(error)
                if now != lines:
                    return f"something else changed the knock rules of {family} before it was confirmed"
                dormant = why_not_in_force(self._host.nftables, family) if lines and commands.backend == NFT else ""
                if dormant:
                    return dormant
        return ""

    def hides(self, connection: Connection) -> Optional[str]:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hiding import what_hides

        return what_hides(self._host, self._iptables, connection)

    def keep(self, before: Dict[str, Any]) -> None:  # noqa: ARG002
        for folder in drop_in_folders(self._host.filesystem.mode):
            self._host.filesystem.remove_if_empty(folder)

    def undo(self, before: Dict[str, Any]) -> str:
        undone, failed = [], []
        for way in before["backends"]:
            try:
                undone.append(self._take_back(self._with(Commands(**way["commands"])), way["families"]))
            except HostError as error:
                failed.append(str(error))
        if failed:
            raise HostError(" ".join(failed))
        return worst(undone)

    def _take_back(self, iptables: Iptables, families: Dict[str, Dict[str, Any]]) -> str:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.take_back import take_back

        return take_back(iptables, _native(self._host), families)

    def undo_after_boot(self, before: Dict[str, Any]) -> str:
        """Have our rules as they are in the rules file: that is what the boot would have loaded, with the plain commands."""
        back: Dict[str, Dict[str, Any]] = {}
        # Where there was no iptables to load it with, there is nothing of it.
        for family in before["families"] if before["backends"] else ():
            path = before["rules_files"].get(family, "")
            known = [way["families"][family] for way in before["backends"] if family in way["families"]]
            save = self._host.filesystem.read(path) if path else ""
            back[family] = dict(*known[:1] or [dict(chains=[], hooks=[])], save=save)
        return self._take_back(self._iptables, back) if back else EXACT

    def is_loaded_in(self, before: str, now: str) -> bool:
        return own_lines(now) != own_lines(before)

    def without_loaded(self, path: str, before: str, now: str) -> str:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.rules_file import file_before

        try:
            text = file_before(now, before, path)
        except HostError:
            return before
        return text if before or re.search("^-A", text, re.M) else ""

    def open_doors(self) -> OpenDoors:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.open_doors import RulesetDoors

        return RulesetDoors(self._host, self._iptables)

    def inspect(self, report: Report) -> Report:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.inspect import inspect_ruleset

        return inspect_ruleset(self._host, self._iptables, report)


def _built(iptables: Optional[Iptables], wanted: Wanted, saves: Dict[str, str]) -> Dict[str, BuiltRules]:
    """Return IP version to the rules that are to be there.

    :param iptables: None where it is not installed.
    """
    if wanted.spec is None:
        return {}
    return {
        family: build_rules(wanted.spec, family, iptables is None or iptables.has_nat(family, saves.get(family, "")))
        for family in wanted.families
    }


def _native(host: Any) -> Native:
    return Native(host.command.run, host.command.find, host.nftables.chains, host.nftables.empty_chain)


_Planned = Tuple[Tuple[Plan, ...], Dict[str, str]]
"""The plans for one backend, and IP version to what its iptables-save printed."""


def _before(iptables: Optional[Iptables], here: _Planned, elsewhere: _Planned, kept: Kept) -> Dict[str, Any]:
    """Return what undo needs; JSON.

    :param iptables: None where it is not installed.
    """
    ways = _ways_back(iptables, here, elsewhere) if iptables is not None else []
    return dict(backends=ways, families=[plan.family for plan in here[0]], rules_files=kept.rules_files)


def _ways_back(iptables: Iptables, here: _Planned, elsewhere: _Planned) -> List[Dict[str, Any]]:
    """Return of each backend its commands, and for each IP version that is changed what was there."""
    ways = []
    for each, (plans, saves) in ((iptables, here), (iptables.other(), elsewhere)):
        families = {plan.family: plan.way_back(saves[plan.family]) for plan in plans if plan.change}
        ways.append(dict(commands=each.commands._asdict(), families=families))
    return ways


def _plan(wanted: Wanted, owns: Dict[str, Any], family: str, save: str, local: LocalNetwork = UNKNOWN) -> Plan:
    spec = wanted.spec if family in wanted.families else None
    return plan_family(save, spec, family, owns.get(family), local)


def _local_network(host: Any, wanted: Wanted) -> LocalNetwork:
    """Return what is known of the host's network.

    :raises SpecError: if an interface is trusted by which everybody comes in, or a door is to this host itself.
    """
    local: LocalNetwork = host.kernel.local_network()
    if wanted.spec is not None:
        check_of_this_host(wanted.spec, local)
    return local


def _prove(host: Any, wanted: Wanted, plans: Tuple[Plan, ...], kept: Kept, local: LocalNetwork) -> Proven:
    """Return the Proven of a change.

    :raises SpecError: if a packet would get to a door without the knock.
    """
    if wanted.spec is None:
        return NOTHING_PROVEN
    from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proven import prove_change

    return prove_change(wanted, plans, boot_texts(host, wanted, kept), local)


def _door_of(wanted: Wanted, plans: Tuple[Plan, ...], local: LocalNetwork) -> str:
    """Return the door that a new connection like this one must knock at, '' for none.

    :raises SpecError: if no such connection would get in, or go on.
    """
    connection = wanted.connection
    if wanted.spec is None or connection is None:
        return ""
    for plan in plans:
        if plan.family == family_of(connection.source) and plan.family in wanted.families:
            _check_lets_in(plan, wanted.spec, connection)
            door = door_for(wanted.spec, connection.port, connection.source)
            if door:
                check_tracked(plan.document, wanted.spec, connection, local)
            return door
    return ""


def _check_lets_in(plan: Plan, spec: Any, connection: Connection) -> None:
    table, tail = plan.document.table("filter"), position_of(plan.then, TAIL)
    if not lets_in(table, spec, tail, connection.port, connection.source):
        raise shut_out(spec, connection)


__all__ = ("Ruleset",)
