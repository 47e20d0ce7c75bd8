# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of iptables on this host, behind one small seam: a function that runs a command."""

import os
import re
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import CHAIN, FILTER, NAT, table_of
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES
from ansible_collections.sesame.portknock.plugins.module_utils._redact import without_steps_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6
from ansible_collections.sesame.portknock.plugins.module_utils._tables.readable import readable_rule

LOCK_SECONDS = 30
"""How long to wait for the lock that iptables commands share."""

PROBE = "PORTKNOCK_PROBE"

NFT, LEGACY = "nft", "legacy"

_TAILS = ("", "-save", "-restore")
_UNREADABLE = re.compile(r"^# Table [`'](\w+)' is incompatible", re.M)
"""Printed among the tables, with exit code 0, in the place of one that holds what iptables does not know."""
_COUNTERS = r"(?:\[\d+:\d+\] )?"
"""What stands in front of a rule of a save with counters."""
_LAST_TABLE = re.compile(r"^\*(\w+)$", re.M)

NFT_FAMILIES = {IPV4: "ip", IPV6: "ip6"}
_NAT_MODULES = {
    (NFT, IPV4): ("nft_chain_nat", "nft_chain_nat_ipv4"),
    (NFT, IPV6): ("nft_chain_nat", "nft_chain_nat_ipv6"),
    (LEGACY, IPV4): ("iptable_nat",),
    (LEGACY, IPV6): ("ip6table_nat",),
}
"""Backend and IP version to the modules that any one of makes table nat; those with numbers are of kernels before 5.1."""
_LEGACY_TABLES = {IPV4: "/proc/net/ip_tables_names", IPV6: "/proc/net/ip6_tables_names"}


Run = Callable[[List[str], str], Tuple[int, str, str]]
"""Runs words with a text for standard input; returns exit code, output, errors."""


class Commands(NamedTuple):
    """The commands of one backend by their own names, which no switch of the alternatives moves; JSON."""

    backend: str
    """NFT or LEGACY."""
    paths: Dict[str, str]
    """Plain name (``iptables-save``) to the path of the command (``/usr/sbin/iptables-nft-save``)."""


class UnreadableError(HostError):
    """iptables-save did not print a table whole, or not as it is: what it left out is not known."""

    def __init__(self, family: str, table: str, where: str = "") -> None:
        """Take the IP version and the table's name, and what is known of the rule, as ``chain INPUT, handle 7``."""
        nft = NFT_FAMILIES[family]
        found = f" ({where})" if where else ""
        super().__init__(
            f"the {family} table {table} cannot be read with {IPTABLES[family]}: it holds rules that were written with nft, and iptables "
            f"cannot print them as they are{found}. What cannot be read cannot be changed safely. Look at it with 'nft -a list table "
            f"{nft} {table}' (package nftables), and move those rules into a table of their own ('nft add table {nft} NAME') or write "
            f"them with {IPTABLES[family]}; then run this again."
        )
        self.family, self.table = family, table


class Iptables:
    """Reads and changes the ruleset of this host, through the commands of one backend."""

    def __init__(
        self,
        run: Run,
        find: Callable[[str], Optional[str]],
        read: Callable[[str], str],
        commands: Optional[Commands] = None,
    ) -> None:
        """Take the seams.

        :param run: function (list of words, text for standard input) to (exit code, output, errors).
        :param find: function from a command's name to its path, or None.
        :param read: function from a path to the file's text, '' where there is none.
        :param commands: which commands to use; those of the backend that the plain commands talk to, if None.
        """
        self._run, self._find, self._read = run, find, read
        self._commands = commands

    def installed(self, family: str) -> bool:
        """Return whether the commands for a family are there."""
        if self._commands is None and not self.has_plain(IPV4) and not self.has_plain(IPV6):
            return False
        return all(IPTABLES[family] + tail in self.commands.paths for tail in _TAILS)

    def has_plain(self, family: str) -> bool:
        """Return whether the commands for a family are there by their plain names, by which a boot calls them."""
        return all(self._find(IPTABLES[family] + tail) for tail in _TAILS)

    @property
    def commands(self) -> Commands:
        """The commands that are used, chosen once.

        :raises HostError: if the backend of the plain ones is not known.
        """
        if self._commands is None:
            self._commands = self._commands_of(self.plain_backend())
        return self._commands

    @property
    def backend(self) -> str:
        """NFT or LEGACY: what the commands that are used talk to."""
        return self.commands.backend

    @property
    def is_nft(self) -> bool:
        """Whether nft sees what the commands that are used write."""
        return self.backend == NFT

    def plain_backend(self) -> str:
        """Return NFT or LEGACY: what the plain commands talk to now.

        :raises HostError: if there are none, or they do not say it.
        """
        path = self._find(IPTABLES[IPV4]) or self._find(IPTABLES[IPV6])
        if path is None:
            raise HostError("iptables is not installed on this host any more.")
        code, out, _err = self._run([path, "-V"], "")
        if code:
            raise HostError(f"{path} -V failed, so its backend is not known. Run it by hand to see why.")
        return NFT if "nf_tables" in out else LEGACY

    def works(self, family: str) -> bool:
        """Return whether the command that loads rules can be run: its package may be gone by now, or a library of it."""
        return self._run([self.commands.paths[IPTABLES[family] + "-restore"], "-V"], "")[0] == 0

    def _commands_of(self, backend: str, plain: bool = True) -> Commands:
        """Return the commands of a backend by their own names, or by the plain ones where they have none.

        :param plain: whether the plain names will do.
        """
        paths = {}
        for name in IPTABLES.values():
            for tail in _TAILS:
                path = self._find(f"{name}-{backend}{tail}") or (self._find(name + tail) if plain else None)
                if path:
                    paths[name + tail] = path
        return Commands(backend, paths)

    def other(self) -> "Iptables":
        """Return an Iptables for the other backend; a family may lack commands there."""
        other = self._commands_of(LEGACY if self.backend == NFT else NFT, plain=False)
        return Iptables(self._run, self._find, self._read, other)

    def _name(self, command: str) -> str:
        """Return the name of a command as a person types it."""
        return self.commands.paths[command].rsplit("/", 1)[-1]

    def save(self, family: str, counters: bool = False) -> str:
        """Return what iptables-save prints of all tables that exist, with packet counters or not; makes and loads none.

        :raises UnreadableError: if the filter table is not in it whole.
        :raises HostError: if the command fails.
        """
        command = IPTABLES[family] + "-save"
        code, out, err = self._run([self.commands.paths[command]] + (["-c"] if counters else []), "")
        if "filter" in unreadable_tables(out):
            raise UnreadableError(family, "filter")
        if "Parsing nftables rule failed" in err or not _is_whole(out):
            raise UnreadableError(family, (_LAST_TABLE.findall(out) or ["filter"])[-1])
        if code:
            raise HostError(f"{self._name(command)} failed: {err.strip()}. Run it by hand to see why.")
        return out

    def may_hold(self, family: str) -> bool:
        """Return whether this backend may hold rules of a family, and can say so; does not make the kernel load it."""
        if IPTABLES[family] + "-save" not in self.commands.paths:
            return False
        return bool(self._read(_LEGACY_TABLES[family]).strip()) if self.backend == LEGACY else self.kernel_has_nft()

    def first_rule(self, family: str, save: str) -> str:
        """Return where a rule of a save stands, one of ours first, and how it reads, with no step in it, or ''."""
        begin = rf"^{_COUNTERS}-A "
        found = re.search(rf"{begin}(INPUT) (.*PORTKNOCK.*)$", save, re.M) or re.search(
            rf"{begin}(\S+) (.*)$", save, re.M
        )
        if found is None:
            return ""
        return f"{self._name(IPTABLES[family] + '-save')} shows: {readable_rule(*found.groups()).strip()}"

    def drops_all(self, family: str) -> bool:
        """Return whether the policy of INPUT is DROP and there is no rule."""
        if not self.may_hold(family):
            return False
        code, out, _err = self._run([self.commands.paths[IPTABLES[family] + "-save"]], "")
        table = table_text(out, FILTER) if code == 0 else ""
        return ":INPUT DROP" in table and "\n-A INPUT " not in table

    def kernel_has_nft(self) -> bool:
        """Return whether nf_tables is in the kernel already: asking for its rules would load it."""
        loaded = self._read("/proc/modules")
        built_in = self._read(f"/lib/modules/{os.uname().release}/modules.builtin")
        return not loaded or "nf_tables " in loaded or "/nf_tables.ko" in built_in

    def has_nat(self, family: str, save: str) -> bool:
        """Return whether the kernel has table nat for a family, or can be asked to load it; does not make it load it.

        :param save: what iptables-save printed.
        """
        if "*nat\n" in save or "nat" in self._read(_LEGACY_TABLES[family]).split():
            return True
        modules = f"/lib/modules/{os.uname().release}/modules."
        known = self._read(modules + "builtin") + self._read(modules + "dep")
        # Where modules are not to be seen, as in a container, loading the rules will tell.
        return not known or any(f"/{name}.ko" in known for name in _NAT_MODULES[self.backend, family])

    def restore(self, family: str, text: str, test: bool = False, flush: bool = False) -> None:
        """Load a text with ``iptables-restore --noflush`` in one step, or only test it.

        :param flush: put the tables that the text names in the place of those that are there.
        :raises HostError: with the line that was not taken, its knock ports left out.
        """
        command = IPTABLES[family] + "-restore"
        words = [self.commands.paths[command], "-w", str(LOCK_SECONDS)]
        words += ([] if flush else ["--noflush"]) + (["--test"] if test else [])
        code, _out, err = self._run(words, text)
        if code:
            raise HostError(
                f"{self._name(command)} refused the ruleset, and changed nothing: "
                f"{without_steps_of(err.strip(), text)}{_failing_line(err, text)}"
            )

    def probe(self, family: str, chains: Mapping[str, Iterable[str]]) -> None:
        """Load every match and target that the rules use into a chain that nothing jumps to, and drop it.

        :param chains: the collection's chains, name to rules.
        :raises HostError: names what this kernel or this iptables does not have.
        """
        said = self._try_samples(family, [], NAT) if any(table_of(name) == NAT for name in chains) else ""
        if said:
            raise HostError(
                f"this kernel has no table nat for {IPTABLES[family]} ({said}), in which ports that it publishes are guarded. Install the "
                "full package of the running kernel's modules, or set published to none. Nothing was changed."
            )
        samples = sorted(_samples(chains).items())
        missing = self._try_samples(family, [text for _name, text in samples])
        if missing:
            names = [name for name, text in samples if self._try_samples(family, [text])]
            raise HostError(
                "this host's {0} cannot use {1} ({2}). Install the package with the kernel's missing modules: on EL 10 and later "
                "kernel-modules-extra-$(uname -r), or, if that is not to be had, update the kernel and reboot; elsewhere the full "
                "package of the running kernel's modules. Nothing was changed.".format(
                    IPTABLES[family], ", ".join(names) or "these rules", missing
                )
            )

    def _try_samples(self, family: str, texts: Iterable[str], table: str = FILTER) -> str:
        """Return '' if all texts load, else what iptables-restore said; leaves nothing behind."""
        restore = self.commands.paths[IPTABLES[family] + "-restore"]
        words = [restore, "-w", str(LOCK_SECONDS), "--noflush"]
        lines = ["*" + table, f":{PROBE} - [0:0]"] + [f"-A {PROBE} {text}" for text in texts]
        code, _out, err = self._run(words, "\n".join(lines + ["COMMIT", ""]))
        if code:
            return err.strip() or f"exit code {code}"
        self._run(words, f"*{table}\n:{PROBE} - [0:0]\n-X {PROBE}\nCOMMIT\n")
        return ""


def unreadable_tables(save: str) -> List[str]:
    """Return the names of the tables that iptables-save says it cannot print."""
    return _UNREADABLE.findall(save)


def _is_whole(save: str) -> bool:
    """Return whether the last table of a save has its end: a command that gives up prints no more."""
    lines = [line for line in save.split("\n") if line and line[0] != "#"]
    return not lines or lines[-1] == "COMMIT"


def own_lines(save: str) -> str:
    """Return the collection's lines of a save, with counters or without, as one text, to compare it with a later one."""
    tables = [re.sub(f"^{_COUNTERS}", "", table_text(save, table), flags=re.M) for table in (FILTER, NAT)]
    return "\n".join(line for table in tables for line in table.split("\n") if "PORTKNOCK" in line and line[:1] == "-")


def table_text(save: str, table: str) -> str:
    """Return the lines of one table of a save, without its header and its end; '' where it is not in it."""
    return save.partition(f"*{table}\n")[2].partition("\nCOMMIT")[0]


def _samples(chains: Mapping[str, Iterable[str]]) -> Dict[str, str]:
    """Return name to one rule for every match and target used, free of ports, lists and chains of the collection."""
    samples = {
        "the comment match": "-m comment --comment probe",
        "the conntrack match": "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    }
    texts = [text for rules in chains.values() for text in rules]
    for name, mark, sample in (
        ("the recent match", "-m recent", "-m recent --rcheck --seconds 1 --name pk_.probe --rsource"),
        ("the multiport match", "-m multiport", "-p tcp -m multiport --dports 1,2"),
        ("the addrtype match", "-m addrtype", "-m addrtype --dst-type LOCAL"),
        ("the pkttype match", "-m pkttype", "-m pkttype --pkt-type unicast"),
        ("the limit match", "-m limit", "-m limit --limit 10/min"),
        ("the LOG target", "-j LOG", "-j LOG"),
        ("the REJECT target", "-j REJECT", "-j REJECT"),
    ):
        if any(mark in text for text in texts):
            samples[name] = sample
    return samples


def _failing_line(err: str, text: str) -> str:
    found = re.search(r"line:? (\d+)", err)
    lines = text.splitlines()
    if not found or not 0 < int(found.group(1)) <= len(lines):
        return ""
    line = lines[int(found.group(1)) - 1]
    rule = re.match(r"^-[AID] (\S+) (.*)$", line)
    if rule and CHAIN.match(rule.group(1)):
        line = readable_rule(rule.group(1), rule.group(2)).strip()
    return f" (line {found.group(1)}: {line})"


__all__ = (
    "LEGACY", "LOCK_SECONDS", "NFT", "NFT_FAMILIES", "PROBE", "Commands", "Iptables", "UnreadableError", "own_lines",
    "table_text", "unreadable_tables",
)  # fmt: skip
