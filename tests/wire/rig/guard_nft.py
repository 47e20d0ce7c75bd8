# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change of the engine nftables under guard, and what can happen to nftables while it waits."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from rig import faults
from rig.controller import Run
from rig.guard import ALLOW, DOOR, OLD, REFUSED, STRANGER, Case
from rig.network import Rig
from rig.nftables import NFTABLES, TABLE
from rig.packets import IPV4
from rig.peer import OPEN
from rig.target import door

BEFORE: dict[str, Any] = {"doors": [door(6200, 8300, 5100, name="before", opens=(2200,))], "allow": ALLOW}
"""What is in force before a change of which the engine is not new."""
NFT = "/usr/sbin/nft"
# What stands in the place of nft when something is really loaded.
WRAPPER = f"""#!/bin/sh
case " $* " in
*" -c "*) ;;
*" -f "*)
    input=$(mktemp)
    cat >"$input"
    echo "$$" >>/run/own/loads
    {{what}}
    {NFT}.real "$@" <"$input"
    code=$?
    rm -f "$input"
    exit $code
    ;;
esac
exec {NFT}.real "$@"
"""
FAILS = "rm -f $input; echo 'Error: the wrapper says no' >&2; exit 1"


def tables(rig: Rig) -> dict[str, list[str]]:
    """Return the chains and sets of all tables that iptables does not have, without counters and elements.

    They are sorted: those that go and come again are listed last.
    """
    run = rig.target.namespace.run
    found = {}
    for line in run("nft", "list", "tables").stdout.splitlines():
        _table, family, name = line.split()
        # Those of iptables are compared by its own commands, and some nft cannot print.
        if family not in ("ip", "ip6") or name not in ("filter", "nat", "mangle", "raw", "security"):
            text = run("nft", "-s", "-t", "list", "table", family, name).stdout
            found[f"{family} {name}"] = sorted(re.sub(r"elements = \{[^}]*\}", "", text).split("\n\t}\n"))
    return found


class NftCase(Case):
    """One change of the engine nftables."""

    kept = "/etc/portknock/table.nft"

    def __init__(self, rig: Rig, controller: Any, before: bool = False) -> None:
        """Take whether the engine is there before."""
        self.undo = ""
        if before:
            rig.target.module(engine=NFTABLES, **BEFORE)
        super().__init__(rig, controller)

    def remember(self) -> None:
        """Take what is there now for the old state."""
        super().remember()
        self.tables = tables(self.rig)

    def others_changed(self) -> None:
        """Others changed their rules, or all there are: theirs stay as they are now, and ours come back."""
        super().others_changed()
        ours = {name: text for name, text in self.tables.items() if name == TABLE}
        self.tables = {**tables(self.rig), **ours}
        if TABLE not in ours:
            self.tables.pop(TABLE, None)

    def apply(self, *doors: dict[str, Any], **how: Any) -> Run:
        """Run the module under guard with the engine nftables."""
        return super().apply(*doors, **dict(how, engine=NFTABLES))

    def check(self, end: str, run: Run, undo: str = "exact", family: str = IPV4, tidy: bool = True) -> None:
        """Check everything."""
        self.undo = undo
        super().check(end, run, undo, family, tidy)

    def check_target(self, end: str, family: str = IPV4, tidy: bool = True) -> None:
        """Check rules, files, and who gets in by a new connection."""
        faults.settled(self.rig)
        files, now = faults.files(self.rig), tables(self.rig)
        staged = {path for path in files if "/.portknock-" in path or "/portknock/pending/" in path}
        assert not (tidy and staged), staged
        rules = faults.ruleset(self.rig)
        assert faults.foreign(rules) == faults.foreign(self.before)
        if end in (OLD, REFUSED):
            if self.undo == "emptied":
                (chain,) = [each for each in now[TABLE] if each.startswith("\n\tchain input {")]
                assert "comment" not in chain, chain
            else:
                assert now == self.tables
            left = {path: text for path, text in files.items() if path not in staged}
            assert left == self.files, sorted(set(left) ^ set(self.files))
            assert self.gets_in(family)
        else:
            assert "portknock:about" in str(now[TABLE])
            assert {name: text for name, text in now.items() if name != TABLE} == {
                name: text for name, text in self.tables.items() if name != TABLE
            }
            assert self.kept in files

    def in_force(self) -> bool:
        """Return whether the table is there."""
        return TABLE in tables(self.rig)

    def rules_are_back(self) -> bool:
        """Return whether the rules are those of the old state."""
        return super().rules_are_back() and tables(self.rig) == self.tables

    def loading_is(self, what: str, last: bool = False) -> contextlib.AbstractContextManager[None]:
        """Within the block lines of sh run before something is loaded; both families are one load, so the last is the only one."""
        del last
        return wrapped(what)(self)

    def is_loading(self) -> bool:
        """Return whether something has begun to be loaded, within that block."""
        return bool(faults.text_of(self.rig, "/run/own/loads"))

    def check_door(self, family: str = IPV4) -> None:
        """The door holds: closed to whoever has not knocked, open for who does."""
        source = STRANGER[family]
        assert self.rig.client.probe(22, family, source=source) != OPEN
        self.rig.client.knock(*DOOR["knock"], family=family, source=source)
        assert self.gets_in(family, bind=source)
        name = "open4_ssh" if family == IPV4 else "open6_ssh"
        self.rig.target.namespace.run("nft", "flush", "set", *TABLE.split(), name)

    def check_next(self, knocks: bool = False) -> None:
        """The next change, of a door that works, does."""
        self.undo = ""
        super().check_next(knocks)


def case_of(rig: Rig, controller: Any) -> Case:
    """Return a change of the engine that the test is run with."""
    return NftCase(rig, controller) if rig.target.engine == NFTABLES else Case(rig, controller)


# What happens to nftables


def load(rig: Rig, text: str) -> None:
    """Load what others have."""
    rig.target.namespace.run("nft", "-f", "/dev/stdin", stdin=text)


def flush(case: NftCase) -> None:
    """Somebody types it, or restarts nftables.service where nothing puts the table back."""
    load(case.rig, "flush ruleset\n")
    case.others_changed()


def restart(case: NftCase) -> None:
    """nftables.service is restarted, with what Debian has in its file."""
    load(case.rig, "flush ruleset\ntable inet filter { chain input { type filter hook input priority 0; }; }\n")
    case.others_changed()


def delete(case: NftCase) -> None:
    """Somebody deletes the table."""
    load(case.rig, f"delete table {TABLE}\n")


def firewalld(case: NftCase) -> None:
    """Another firewall has a table of its own, and loads it anew, as firewalld does; it refuses nothing that matters here."""
    text = "table inet firewalld { chain in { type filter hook input priority 10; tcp dport 81 reject; }; }\n"
    load(case.rig, text)
    load(case.rig, "delete table inet firewalld\n" + text)
    case.others_changed()


def another_table(rule: str, seconds: int = 0) -> Any:
    """Another table refuses something within the block, or only for some seconds."""

    @contextlib.contextmanager
    def block(case: NftCase) -> Iterator[None]:
        load(case.rig, f"table inet others {{ chain in {{ type filter hook input priority -20; {rule}; }}; }}\n")
        gone = ["nft", "delete", "table", "inet", "others"]
        try:
            with contextlib.ExitStack() as stack:
                if seconds:
                    line = f"sleep {seconds}; " + " ".join(gone)
                    stack.callback(case.rig.target.namespace.start("sh", "-c", line).wait)
                yield
        finally:
            if not seconds:
                case.rig.target.namespace.run(*gone)

    return block


@contextlib.contextmanager
def lost(case: NftCase) -> Iterator[None]:
    """Within the block the command nft is gone."""
    run = case.rig.target.namespace.run
    run("mv", NFT, f"{NFT}.away")
    try:
        yield
        faults.settled(case.rig)
    finally:
        run("mv", f"{NFT}.away", NFT)


def wrapped(what: str) -> Any:
    """Within the block a script stands in the place of nft that does something before a text is loaded."""

    @contextlib.contextmanager
    def block(case: NftCase) -> Iterator[None]:
        run = case.rig.target.namespace.run
        run("sh", "-ec", f"rm -f /run/own/loads; mv {NFT} {NFT}.real; cat >{NFT}; chmod +x {NFT}",
            stdin=WRAPPER.replace("{what}", what))  # fmt: skip
        try:
            yield
        finally:
            run("mv", f"{NFT}.real", NFT)

    return block


__all__ = (
    "BEFORE", "FAILS", "NftCase", "another_table", "case_of", "delete", "firewalld", "flush", "lost",
    "restart", "wrapped",
)  # fmt: skip
