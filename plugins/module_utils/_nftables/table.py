# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of an engine that is a table of nftables: planned, loaded and undone for both IP versions in one transaction.

Whether there is one is asked of the kernel itself, so that hosts of another engine need no command nft. What only a change, an
undo or a look needs is imported there.
"""

from typing import Any, Dict, List, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._boot.loaders import not_persisted
from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    EXACT,
    SNAPSHOT,
    Finding,
    Loaded,
    Part,
    PartPlan,
    Report,
    Wanted,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import (
    check_of_this_host,
    door_for,
    is_let_in,
    shut_out,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.here import (
    check_writable,
    installed_on,
    text_in_force,
    why_not_in_force,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import Installed
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.unit import table_files
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import OpenDoors
from ansible_collections.sesame.portknock.plugins.module_utils._paths import NFTABLES_CONFIGS, RUN_TABLE, TABLE_FILE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES, Spec, family_of

REMEMBERED = "table"
"""Under which key it is remembered what was loaded: ``shape``, and ``persist``, whether a boot loads it again."""


class Details(NamedTuple):
    """What a plan of the table holds for itself. Secret."""

    installed: Optional[Installed]
    """The table as it was found, None where there was none."""
    text: str
    """The text that is to be in force, '' where there is to be no table."""
    change: str
    """The transaction that does it."""
    drift: List[str]
    """What is not as the same options had written it."""


class Table(Part):
    """The table of this host."""

    name = "table"

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self._nft = Nft(host.command.run, host.command.find)

    def import_late(self) -> None:
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables import (  # noqa: F401
            carried,
            change,
            inspect,
            judge,
            open_doors,
            plan,
            saved,
        )

    # Planning

    def plan(self, wanted: Wanted) -> PartPlan:
        check_writable(self._host)
        installed, spec = installed_on(self._host, self._nft), wanted.spec
        if spec is None and installed is None:
            return PartPlan(self.name, wanted, False, files=table_files(None, "", persist=False))
        if spec is not None:
            _check_host(self._host, spec, installed)
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.change import table_before
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.judge import NOTHING, judge_change
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.plan import plan_table

        managed = spec._replace(ip_versions=wanted.families) if spec is not None else None
        planned = plan_table(managed, installed, wanted.state.get(REMEMBERED, {}).get("shape", ""))
        files = table_files(managed, planned.text, wanted.persist)
        door = _door_of(wanted)
        unkept = [] if spec is None or wanted.persist else [not_persisted()]
        judged = judge_change(self._host, wanted, planned.text, bool(planned.change)) if spec is not None else NOTHING
        if planned.change:
            _check_loadable(self._nft, wanted, planned.change)
            files.update({RUN_TABLE: (planned.text, 0o600)} if planned.text else {})
        return PartPlan(
            part=self.name,
            wanted=wanted,
            loads=bool(planned.change),
            begins=installed is None and bool(planned.change),
            files=files,
            early=(RUN_TABLE,),
            previous=(TABLE_FILE,) if spec is not None else (),
            saved_to=NFTABLES_CONFIGS,
            last_way=(f"{self._nft.path} flush table {TABLE}",) if planned.change else (),
            last_look=self._nft.lets_in_words() if planned.change else (),
            door=door,
            findings=(*unkept, *judged.findings),
            facts=dict(backend="", closes=judged.closes, proof=judged.proof) if spec is not None else {},
            before=table_before(self._host, self._nft, installed, planned.text) if planned.change else {},
            remembered=judged.remembered,
            details=Details(installed, planned.text, planned.change, planned.drift),
        )

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:
        details = plan.details
        if details is None or not details.change:
            return []
        from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_table

        header = f"table {TABLE} in the kernel"
        before = readable_table(text_in_force(self._host, details.installed))
        changed = "".join(f"# {line}\n" for line in details.drift)
        return [
            dict(before_header=header, after_header=header, before=before + changed, after=readable_table(details.text))
        ]

    def readable(self, path: str, text: str) -> str:
        if path not in (TABLE_FILE, RUN_TABLE):
            return text
        from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_table

        return readable_table(text)

    # Changing

    def load(self, plan: PartPlan) -> Loaded:
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.change import load_table, remove_table

        if plan.wanted.spec is None:
            remove_table(self._host, self._nft, plan.before)
            return Loaded(dict(digest="", shape=""), {REMEMBERED: {}})
        now = load_table(self._host, self._nft, plan)
        remembered = dict(shape=now.shape, persist=plan.wanted.persist)
        return Loaded(dict(digest=now.digest, shape=now.shape), {REMEMBERED: remembered})

    def forget(self, plan: PartPlan, door: str, source: Any) -> None:
        doors = self.open_doors()
        if doors is not None and plan.wanted.spec is not None:
            doors.close(door, source)

    def problem(self, before: Dict[str, Any], expected: Dict[str, Any]) -> str:  # noqa: ARG002
        if not expected:
            return ""
        try:
            installed = installed_on(self._host, self._nft)
        except HostError as error:
            return str(error)
        if installed is None and expected["digest"]:
            return f"something else removed the table {TABLE} before it was confirmed, as 'nft flush ruleset' does"
        if installed is None:
            return ""
        if installed.digest != expected["digest"] or installed.is_edited(expected["shape"]):
            return f"something else changed the table {TABLE} before it was confirmed"
        return why_not_in_force(self._host)

    def missing_knock(self, proof: Dict[str, Any], source: Any) -> str:  # noqa: ARG002
        """Return '': what recognises the knock is the very ruleset that a new connection is let in by."""
        return ""

    def undo(self, before: Dict[str, Any]) -> str:
        if not before:
            return EXACT
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.change import put_back, take_out

        try:
            put_back(self._host, self._nft, before, installed_on(self._host, self._nft))
        except HostError:
            # Access comes first.
            return take_out(self._host, self._nft, before)
        return SNAPSHOT if before["listing"] else EXACT

    def undo_after_boot(self, before: Dict[str, Any]) -> str:
        # Who was in before the boot is not any more, and the clock begins anew.
        return self.undo(dict(before, known={}) if before else before)

    def keep(self, before: Dict[str, Any]) -> None:
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.unit import DROP_IN

        if before and self._host.filesystem.mode(DROP_IN) is None:
            self._host.filesystem.remove_if_empty(DROP_IN.rpartition("/")[0])

    def is_loaded_in(self, before: str, now: str) -> bool:
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.saved import own_blocks

        return own_blocks(now) != own_blocks(before)

    def without_loaded(self, path: str, before: str, now: str) -> str:  # noqa: ARG002
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.saved import with_own_blocks

        return with_own_blocks(now, before)

    # Looking

    def open_doors(self) -> Optional[OpenDoors]:
        text = text_in_force(self._host, installed_on(self._host, self._nft))
        if not text:
            return None
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.open_doors import TableDoors

        return TableDoors(self._nft, text)

    def inspect(self, report: Report) -> Report:
        installed = installed_on(self._host, self._nft)
        if installed is None and not self._host.filesystem.read(TABLE_FILE):
            return report
        from ansible_collections.sesame.portknock.plugins.module_utils._nftables.inspect import inspect_table

        text = text_in_force(self._host, installed) or self._host.filesystem.read(TABLE_FILE)
        report = inspect_table(self._host, self._nft, installed, text, report)
        dormant = why_not_in_force(self._host) if installed is not None else ""
        found = [Finding("doors_gone", "", "", dormant + ".")] if dormant else []
        if report.wanted is not None and not ENGINES[report.wanted.spec.engine].uses_iptables:
            from ansible_collections.sesame.portknock.plugins.module_utils._nftables.judge import judge_live

            judged = judge_live(self._host, report.wanted)
            found += [*judged.findings, *([] if report.wanted.persist else [not_persisted()])]
            report = report._replace(facts=dict(report.facts, proof=judged.proof))
        return report._replace(findings=report.findings + found)


def _check_host(host: Any, spec: Spec, installed: Optional[Installed]) -> None:
    """Refuse options that are of another host, and a table that no packet meets, before anything is touched.

    :raises SpecError: if they are.
    :raises HostError: if it is.
    """
    check_of_this_host(spec, host.kernel.local_network())
    dormant = why_not_in_force(host) if installed is not None else ""
    if dormant:
        raise HostError(f"{dormant}. Nothing was changed.")


def _check_loadable(nft: Nft, wanted: Wanted, change: str) -> None:
    """Refuse what nft or the kernel would not take, before anything is touched.

    :raises HostError: with what is missing.
    """
    if wanted.may_lack and not nft.is_there:
        return
    nft.check_version()
    nft.check(change)


def _door_of(wanted: Wanted) -> str:
    """Return the door that a new connection like this one must knock at, '' for none.

    :raises SpecError: if no such connection would get in.
    """
    spec, connection = wanted.spec, wanted.connection
    if spec is None or connection is None or family_of(connection.source) not in wanted.families:
        return ""
    decided = is_let_in(spec, connection.port, connection.source)
    if decided is False or (decided is None and spec.policy == "reject"):
        raise shut_out(spec, connection)
    return door_for(spec, connection.port, connection.source)


__all__ = ("REMEMBERED", "Details", "Table")
