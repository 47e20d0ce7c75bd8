# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""The commands of iptables on this host, behind one small seam: a function that runs a command."""

import os
import re

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._keep import COMMANDS
from ansible_collections.sesame.portknock.plugins.module_utils._plan import readable_rule
from ansible_collections.sesame.portknock.plugins.module_utils._rules import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._spec import IPV4, IPV6

LOCK_SECONDS = 30
"""How long to wait for the lock that iptables commands share."""

PROBE = "PORTKNOCK_PROBE"
NFT, LEGACY = "nft", "legacy"
_LEGACY_TABLES = {IPV4: "/proc/net/ip_tables_names", IPV6: "/proc/net/ip6_tables_names"}


class Iptables:
    """Reads and changes the ruleset of this host."""

    def __init__(self, run, find, read):
        """Take the seams.

        :param run: function (list of words, text for standard input) to (exit code, output, errors).
        :param find: function from a command's name to its path, or None.
        :param read: function from a path to the file's text, '' where there is none.
        """
        self._run, self._find, self._read = run, find, read

    def installed(self, family):
        """Tell whether the commands for a family are there."""
        return all(self._find(COMMANDS[family] + tail) for tail in ("", "-save", "-restore"))

    def backend(self, family=IPV4):
        """Return ``nft`` or ``legacy``: what the plain command talks to."""
        _code, out, _err = self._run([self._find(COMMANDS[family]), "-V"], "")
        return NFT if "nf_tables" in out else LEGACY

    def save(self, family, counters=False):
        """Return what iptables-save prints of all tables that exist, with packet counters or not; makes and loads none.

        :raises HostError: if the command fails.
        """
        code, out, err = self._run([self._find(COMMANDS[family] + "-save")] + (["-c"] if counters else []), "")
        if code:
            raise HostError("{0}-save failed: {1}. Run it by hand to see why.".format(COMMANDS[family], err.strip()))
        return out

    def other_backend_rules(self, family, backend):
        """Return the first rule that the other backend holds in a family, or ''."""
        if backend == NFT and not self._read(_LEGACY_TABLES[family]).strip():
            return ""
        if backend == LEGACY and not self._kernel_has_nft():
            return ""
        other = "{0}-{1}-save".format(COMMANDS[family], LEGACY if backend == NFT else NFT)
        path = self._find(other)
        if not path:
            return ""
        code, out, _err = self._run([path], "")
        found = re.search(r"^-A .*$", out, re.M) if code == 0 else None
        return "{0} shows: {1}".format(other, found.group(0)) if found else ""

    def _kernel_has_nft(self):
        """Tell whether nf_tables is in the kernel already: asking for its rules would load it."""
        loaded = self._read("/proc/modules")
        built_in = self._read("/lib/modules/{0}/modules.builtin".format(os.uname().release))
        return not loaded or "nf_tables " in loaded or "/nf_tables.ko" in built_in

    def restore(self, family, text, test=False):
        """Load a text with ``iptables-restore --noflush`` in one step, or only test it.

        :raises HostError: with the line that was not taken, its knock ports left out.
        """
        command = COMMANDS[family] + "-restore"
        words = [self._find(command), "-w", str(LOCK_SECONDS), "--noflush"] + (["--test"] if test else [])
        code, _out, err = self._run(words, text)
        if code:
            raise HostError(
                "{0} refused the ruleset, and changed nothing: {1}{2}".format(
                    command, err.strip(), _failing_line(err, text)
                )
            )

    def probe(self, family, chains):
        """Load every match and target that our rules use into a chain that nothing jumps to, and drop it.

        :param chains: our chains, name to rules.
        :raises HostError: names what this kernel or this iptables does not have.
        """
        samples = sorted(_samples(chains).items())
        missing = self._try_samples(family, [text for _name, text in samples])
        if missing:
            names = [name for name, text in samples if self._try_samples(family, [text])]
            raise HostError(
                "this host's {0} cannot use {1} ({2}). Install the package with the kernel's missing modules: on EL 10 and later "
                "kernel-modules-extra-$(uname -r), or, if that is not to be had, update the kernel and reboot; elsewhere the full "
                "package of the running kernel's modules. Nothing was changed.".format(
                    COMMANDS[family], ", ".join(names) or "these rules", missing
                )
            )

    def _try_samples(self, family, texts):
        """Return '' if all texts load, else what iptables-restore said; leaves nothing behind."""
        words = [self._find(COMMANDS[family] + "-restore"), "-w", str(LOCK_SECONDS), "--noflush"]
        lines = ["*filter", ":{0} - [0:0]".format(PROBE)] + ["-A {0} {1}".format(PROBE, text) for text in texts]
        code, _out, err = self._run(words, "\n".join(lines + ["COMMIT", ""]))
        if code:
            return err.strip() or "exit code {0}".format(code)
        self._run(words, "*filter\n:{0} - [0:0]\n-X {0}\nCOMMIT\n".format(PROBE))
        return ""


def _samples(chains):
    """Return name to one rule for every match and target used, free of ports, lists and chains of ours."""
    samples = {
        "the comment match": "-m comment --comment probe",
        "the conntrack match": "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    }
    texts = [text for rules in chains.values() for text in rules]
    for name, mark, sample in (
        ("the recent match", "-m recent", "-m recent --rcheck --seconds 1 --name pk_.probe --rsource"),
        ("the multiport match", "-m multiport", "-p tcp -m multiport --dports 1,2"),
        ("the pkttype match", "-m pkttype", "-m pkttype --pkt-type unicast"),
        ("the limit match", "-m limit", "-m limit --limit 10/min"),
        ("the LOG target", "-j LOG", "-j LOG"),
        ("the REJECT target", "-j REJECT", "-j REJECT"),
    ):
        if any(mark in text for text in texts):
            samples[name] = sample
    return samples


def _failing_line(err, text):
    found = re.search(r"line:? (\d+)", err)
    lines = text.splitlines()
    if not found or not 0 < int(found.group(1)) <= len(lines):
        return ""
    line = lines[int(found.group(1)) - 1]
    rule = re.match(r"^-[AID] (\S+) (.*)$", line)
    if rule and CHAIN.match(rule.group(1)):
        line = readable_rule(rule.group(1), rule.group(2)).strip()
    return " (line {0}: {1})".format(found.group(1), line)


__all__ = ("LEGACY", "LOCK_SECONDS", "NFT", "Iptables")
