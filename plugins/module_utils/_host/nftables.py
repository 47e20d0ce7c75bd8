# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel holds in nftables, asked without the command nft, which not every host has.

It is not taken apart here: a run that meets what the run before met compares the bytes alone.
"""

import hashlib
import os
import re
from typing import List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.netlink import (
    Exchange,
    InterruptedDumpError,
    answers,
    talk,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import (
    ACKNOWLEDGE,
    DUMP,
    FAMILIES,
    REQUEST,
    attribute,
    attributes,
    request,
    transaction,
)

_TRIES = 20
_BOOT, _FIRST_PROCESS, _NAMESPACE = "/proc/sys/kernel/random/boot_id", "/proc/1/stat", "/proc/self/ns/net"
_SUBSYSTEM = 10
_GET_GENERATION, _GENERATION = _SUBSYSTEM << 8 | 16, 1
"""Type of a request whose answer has the number of the last transaction, and the kind of the attribute that holds it."""
GET_TABLES, GET_CHAINS, GET_RULES = (_SUBSYSTEM << 8 | number for number in (1, 4, 7))
"""Types of requests; that of each answer is lower by one."""
DELETE_TABLE, DELETE_RULES = (_SUBSYSTEM << 8 | number for number in (2, 8))
"""Types of requests that change something."""
_COUNTED = re.compile(rb"(counter\0.{8}).{8}(.{4}).{8}", re.S)
"""An expression that counts, up to its bytes, and what is between these and its packets."""


class Nftables:
    """Chains and rules of nftables in the running kernel. To ask for them loads its module."""

    def __init__(self, exchange: Exchange = talk) -> None:
        """Take what talks to the kernel, for tests."""
        self._exchange = exchange

    def rules(self, family: str) -> List[bytes]:
        """Return the rules of all tables of a family, those of a chain in their order, with counters of zero, for nft_kernel.

        :param family: as nft names it, ``ip`` or ``ip6``.
        :raises HostError: if the kernel does not say.
        """
        return [_COUNTED.sub(rb"\1%b\2%b" % (bytes(8), bytes(8)), body) for body in self._all(GET_RULES, family)]

    def tables(self, family: str) -> List[bytes]:
        """Return the tables of a family, for nft_kernel.

        :param family: as nft names it, ``ip`` or ``ip6``.
        :raises HostError: if the kernel does not say.
        """
        return self._all(GET_TABLES, family)

    def _all(self, kind: int, family: str) -> List[bytes]:
        try:
            return self._dump(kind, family)
        except OSError as error:
            raise HostError(
                f"the kernel does not list the rules of nftables ({error}), so it is not known whether iptables shows all of its own "
                "tables. Nothing was changed. Run this again; where it fails again, look whether 'iptables-save' works there."
            ) from error

    def chains(self) -> Optional[List[bytes]]:
        """Return the chains of all tables, for nft_kernel, None where the kernel does not say."""
        try:
            return self._dump(GET_CHAINS, "")
        except OSError:
            return None

    def generation(self) -> str:
        """Return what stays the same as long as nobody changes tables, chains, rules or sets, in iptables-nft as well.

        The kernel counts the transactions of a network namespace; a boot, and a container that starts, begin anew.

        :raises HostError: if the kernel does not say.
        """
        try:
            (body,) = (
                body for _kind, body in answers(self._exchange, request(_GET_GENERATION, REQUEST | ACKNOWLEDGE, 0))
            )
            number = attributes(body[4:])[_GENERATION].hex()
            # A table goes without a transaction where it belongs to a process that ended.
            tables = hashlib.sha256(b"".join(self._dump(GET_TABLES, ""))).hexdigest()
            with open(_BOOT) as boot, open(_FIRST_PROCESS) as first:
                # Behind the name, in brackets, the 20th word is the time at which it started (proc(5)).
                begun = [boot.read().strip(), first.read().rpartition(")")[2].split()[19]]
            return " ".join([*begun, os.readlink(_NAMESPACE), number, tables])
        except (IndexError, KeyError, OSError, ValueError) as error:
            raise HostError(f"the kernel does not tell the generation of its nftables ruleset ({error}).") from error

    def delete_table(self, family: str, table: str) -> None:
        """Delete a table with all that is in it, if it is there, where no command does it any more.

        :param family: as nft names it.
        :raises HostError: if the kernel refuses.
        """
        self._delete(DELETE_TABLE, family, table)

    def empty_chain(self, family: str, table: str, chain: str) -> None:
        """Delete the rules of a chain, if it is there, where no command does it any more.

        :param family: as nft names it.
        :raises HostError: if the kernel refuses.
        """
        self._delete(DELETE_RULES, family, table, chain)

    def _delete(self, kind: int, family: str, *names: str) -> None:
        body = b"".join(attribute(number, name.encode() + b"\0") for number, name in enumerate(names, 1))
        asked = request(kind, REQUEST | ACKNOWLEDGE, FAMILIES[family], body)
        try:
            list(answers(self._exchange, transaction(_SUBSYSTEM, [asked])))
        except FileNotFoundError:
            # There is none.
            pass
        except OSError as error:
            raise HostError(f"the kernel does not delete the rules of {' '.join((family, *names))}: {error}") from error

    def _dump(self, kind: int, family: str) -> List[bytes]:
        asked = request(kind, REQUEST | DUMP, FAMILIES.get(family, 0))
        for turn in range(_TRIES):
            try:
                return [body for found, body in answers(self._exchange, asked) if found == kind - 1]
            except InterruptedDumpError:
                # Others write rules at the same time.
                if turn == _TRIES - 1:
                    raise
        raise AssertionError


__all__ = ("GET_RULES", "Nftables")
