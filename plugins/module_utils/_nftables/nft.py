# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command nft: reads the collection's table, and loads texts. I/O goes through what it is given."""

import re
from typing import Callable, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, read_listing
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element, read_elements
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import Installed, read_installed
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._redact import without_lines

OLDEST = (0, 9, 3)
"""The oldest release of nft that is taken: that of EL 8. It is the oldest one whose syntax has all that a table needs."""

Run = Callable[[Sequence[str], str], Tuple[int, str, str]]
"""Runs a command with a text for its standard input; returns exit code, output and errors."""


_NOT_RUN = 127
"""The exit code where a command, or a library that it needs, is not there."""
_PROBE = "inet portknock_probe"
_NEEDED = {
    "rules that take a source out of a set (Linux 5.4)": "delete @known { ip saddr }",
    "rules that put a source into a set for a time": "update @known { ip saddr timeout 5s }",
    "sets of sources beside a number": "update @numbered { ip saddr . meta mark & 1 | 1 timeout 5s }",
    "maps from a protocol and a port to a chain": "meta l4proto . th dport vmap { 6 . 1 : accept }",
    "the state of a connection (nft_ct)": "ct state established accept",
    "the port that a connection was first sent to": "ct status dnat meta l4proto 6 ct original proto-dst vmap { 1 : accept }",
    "to refuse in a table of both IP versions (nft_reject_inet)": "reject with icmpx type port-unreachable",
    "limits (nft_limit)": "limit rate 10/minute accept",
    "log lines (nft_log)": 'log prefix "portknock: "',
}
"""What a table needs of nft and of the kernel, and a rule that asks for it."""
_LONG = 10000
"""Lines of a text of which only that is checked: the whole would take as long as to load it, a second or more."""


class Nft:
    """The command nft of a host."""

    def __init__(self, run: Run, find: Callable[[str], Optional[str]]) -> None:
        """Take what runs a command, and what returns the path of one or None."""
        self._run, self._path = run, find("nft")

    @property
    def is_there(self) -> bool:
        """Whether the command is installed."""
        return self._path is not None

    @property
    def path(self) -> str:
        """Where the command is, '' where it is not installed."""
        return self._path or ""

    def lets_in_words(self) -> Tuple[str, ...]:
        """Return commands for sh that succeed only if the table, which can be read, has no rule, or is not there."""
        rules = f"{self._path} -s -t list table {TABLE} 2> /dev/null | grep -qF portknock:"
        return f"{self._path} list tables > /dev/null", f"! {rules}"

    def works(self) -> bool:
        """Return whether it can be run: its package may be gone by now, or a library of it."""
        return self._path is not None and self._run([self._path, "--version"], "")[0] == 0

    def check_version(self) -> None:
        """Refuse a release that is too old.

        :raises HostError: if it is, or if it does not say which one it is.
        """
        _code, out, err = self._do(["--version"])
        found = re.search(r"\bv([0-9]+)\.([0-9]+)\.?([0-9]*)", out)
        if not found:
            raise HostError(f"'nft --version' does not say a version: {(out or err).strip()!r}. Reinstall nftables.")
        version = tuple(int(number or 0) for number in found.groups())
        if version < OLDEST:
            raise HostError(
                f"nft {'.'.join(map(str, version))} is older than {'.'.join(map(str, OLDEST))}, which engine nftables needs. "
                "Update the package nftables, or use engine iptables."
            )

    def installed(self) -> Optional[Installed]:
        """Return the table as it is, None where there is none.

        :raises HostError: if that cannot be read.
        """
        if read_installed(self._list(["tables"])) is None:
            return None
        # Counters and elements change from moment to moment, and a run compares what it reads with what the one before has read.
        return read_installed(self._list(["table", *TABLE.split()], "-s", "-t"))

    def counted(self) -> List[Item]:
        """Return the listing of the table with counters, without the elements of its sets.

        :raises HostError: if that cannot be read.
        """
        return self._list(["table", *TABLE.split()], "-t")

    def listing(self) -> str:
        """Return the table as nft prints it, for nft to read again; who has knocked is in there, and steps.

        :raises HostError: if that cannot be read.
        """
        code, out, err = self._do(["-n", "list", "table", *TABLE.split()])
        if code:
            raise HostError(f"'nft list table' failed: {without_lines(err)}. Nothing was changed.")
        return out

    def let_in(self) -> None:
        """Let everybody in, without reading the table: its rules go, who has knocked stays known.

        :raises HostError: if that does not work either.
        """
        self.load(f"flush table {TABLE}\n")

    def elements(self, name: str) -> List[Element]:
        """Return the sources in a set of the table.

        :raises HostError: if that cannot be read.
        """
        return self.size_and_elements(name)[1]

    def size_and_elements(self, name: str) -> Tuple[int, List[Element]]:
        """Return how many sources a set of the table can hold, and those that are in it.

        :raises HostError: if that cannot be read.
        """
        items = self._list(["set", *TABLE.split(), name])
        sizes = [item["set"].get("size", 0) for item in items if "set" in item]
        return int(sizes[0]) if sizes else 0, read_elements(items, name)

    def load(self, text: str, only_check: bool = False) -> None:
        """Load a text in one transaction.

        :param only_check: let nft and the kernel say whether they would take it, and change nothing.
        :raises HostError: if it was refused; then nothing was changed.
        """
        code, _out, err = self._do([*(["-c"] if only_check else []), "-f", "-"], text)
        if code:
            raise HostError(f"nft refused the table, and changed nothing: {without_lines(err)}.")

    def check(self, text: str) -> None:
        """Have nft and the kernel say whether they would take a text; nothing is changed.

        Of a very long one they are asked for what it is made of, and whether the table may be changed: what else they refuse is
        refused as a whole when it is loaded.

        :raises HostError: if not, with what they do not have.
        """
        is_long = text.count("\n") > _LONG
        asked = f"add table {TABLE}\nflush table {TABLE}\n" + _probe(*_NEEDED.values()) if is_long else text
        try:
            self.load(asked, only_check=True)
        except HostError as error:
            missing = [what for what, rule in _NEEDED.items() if not self._takes(rule)]
            if not missing:
                raise
            raise HostError(
                f"this host's nft or kernel does not have what engine nftables needs: {', '.join(missing)}. Nothing was changed. "
                "Boot the newest kernel of the distribution, or use engine iptables."
            ) from error

    def _takes(self, rule: str) -> bool:
        code, _out, _err = self._do(["-c", "-f", "-"], _probe(rule))
        return code == 0

    def _list(self, what: List[str], *options: str) -> List[Item]:
        code, out, err = self._do([*options, "-j", "list", *what])
        if code:
            raise HostError(f"'nft -j list {what[0]}' failed: {without_lines(err)}. Nothing was changed.")
        items = read_listing(out)
        if items is None:
            # As 1.0.6 does of a table that a program owns: it has no word for that flag.
            raise HostError(
                f"'nft -j list {what[0]}' printed no JSON, as older releases do where a running program owns a table. "
                "Stop that program, or update the package nftables. Nothing was changed."
            )
        return items

    def _do(self, words: List[str], text: str = "") -> Tuple[int, str, str]:
        if self._path is None:
            raise HostError("the command nft is not there. Install the package nftables.")
        code, out, err = self._run([self._path, *words], text)
        if code == _NOT_RUN:
            raise HostError(f"{self._path} cannot be run. Install the package nftables again.")
        return code, out, err


def _probe(*rules: str) -> str:
    """Return a text that makes a table with rules, to be checked alone."""
    lines = (
        f"add table {_PROBE}",
        f"add set {_PROBE} known {{ type ipv4_addr; size 16; flags dynamic,timeout; }}",
        f"add set {_PROBE} numbered {{ type ipv4_addr . mark; size 16; flags dynamic,timeout; }}",
        f"add chain {_PROBE} input {{ type filter hook input priority 0; policy accept; }}",
        *(f"add rule {_PROBE} input {rule}" for rule in rules),
    )
    return "".join(f"{line}\n" for line in lines)


__all__ = ("OLDEST", "Nft")
