# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the prover is asked, and what it answers. Pure."""

from typing import Callable, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import AnyAddress, AnyNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Place
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import Packet
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

PROVED, VOID, NOT_PROVED = "proved", "void", "not proved"
SETS_LIST, NO_KNOCK, NOT_COUNTED, CASES = "sets list", "no knock", "not counted", "cases"
"""A rule puts sources on a door's list that have not done its steps; no rule puts any there; packets of the knock do not meet the
rule that counts them; too many cases to follow."""
NOT_RESET = "not reset"
"""A packet to a wrong port does not undo the steps that were done."""
UNFOLLOWED = "unfollowed"
"""A rule may do more to packets than is followed."""
STEP, HIDDEN, NO_PACKET = "step", "hidden", "no packet"
"""The packet goes to the port of a step, which is not shown; the packet is let in, but not tracked; no packet can be like that."""
CONNECTION = "connection"
"""The name of the Word about the connection that a change is made through."""


class GuardedDoor(NamedTuple):
    """A door as the prover is asked about it."""

    name: str
    """Its name."""
    opens: Tuple[Ports, ...]
    """Its ports."""
    listed: str
    """The name of the list of those who have knocked."""
    window: int
    """Seconds after the knock for which the list counts."""
    sources: Optional[Tuple[AnyNetwork, ...]]
    """Who may knock: networks of this family, empty for everyone; None where no source of this family may."""
    shut: bool
    """Whether it is to open to nobody now, as in panic."""
    steps: Tuple[Step, ...]
    """The steps of its knock; empty where no rule is to recognise them. Secret."""
    step_timeout: int
    """The longest pause between two steps, in seconds; 0 where it is not known."""
    close: Tuple[Step, ...] = ()
    """The steps of the knock that closes it. Secret."""
    to: Tuple[AnyNetwork, ...] = ()
    """The hosts behind this one that its ports are on: networks of this family; empty for what nat sends on from this host."""


class Unguarded(NamedTuple):
    """Ports that need no knock."""

    ports: Ports
    """The ports."""
    sources: Optional[Tuple[AnyNetwork, ...]]
    """For whom, as for GuardedDoor.sources."""


class Arriving(NamedTuple):
    """A new TCP connection of the kind that a change is made through."""

    source: AnyAddress
    """The address that it comes from."""
    address: Optional[AnyAddress]
    """The address of this host that it goes to, None where that is not known."""
    port: int
    """The port that it goes to."""
    door: str
    """The door that it knocks at before, '' for none."""
    interface: str
    """The interface by which it comes in, as far as routes tell; '' where they do not."""


class Question(NamedTuple):
    """What is to be proved of one family."""

    doors: Tuple[GuardedDoor, ...]
    """Every door."""
    allow: Tuple[Unguarded, ...]
    """Ports that need no knock."""
    trusted_interfaces: Tuple[str, ...]
    """Interfaces on which no packet needs a knock; ``lo`` is always one."""
    trusted_sources: Tuple[AnyNetwork, ...]
    """Sources that need no knock; networks of this family."""
    own: Tuple[AnyNetwork, ...]
    """The host's own addresses; empty where they are not known."""
    refuses_rest: bool
    """Whether all else is to be refused (policy ``reject``)."""
    is_ours: Callable[[str, str], bool]
    """Whether a rule, by its chain and text, is the collection's."""
    connection: Optional[Arriving] = None
    """The connection that the change is made through, None where there is none."""
    sent_on: bool = False
    """Whether what nat sends on to other hosts is asked about apart."""


class Word(NamedTuple):
    """What the prover says of one door in one family."""

    door: str
    """Its name."""
    word: str
    """PROVED, VOID or NOT_PROVED."""
    packet: Optional[Packet]
    """The packet that refutes it, or the one that could not be followed."""
    place: Optional[Place]
    """The rule that decides this packet, or a chain's policy."""
    rule: str
    """Its text."""
    assumed: Tuple[str, ...]
    """Rules that the packet must meet on its way, and of which nothing tells whether it does: of a set, a mark, a limit, …"""
    gets_in: bool
    """Whether the packet gets in without the knock; else it is refused although its source has knocked."""
    away: bool
    """Whether nat sends the packet elsewhere before INPUT sees its port."""
    why: str = ""
    """What is wrong where that is shown by no packet: SETS_LIST, NO_KNOCK, NOT_COUNTED, CASES, UNFOLLOWED, STEP, HIDDEN or NO_PACKET."""

    @property
    def is_certain(self) -> bool:
        """Whether it is refuted with nothing assumed, by a packet that reaches INPUT as it came."""
        return self.word == VOID and self.packet is not None and not self.assumed and not self.away


__all__ = (
    "CASES",
    "CONNECTION",
    "HIDDEN",
    "NOT_COUNTED",
    "NOT_PROVED",
    "NOT_RESET",
    "NO_KNOCK",
    "NO_PACKET",
    "PROVED",
    "SETS_LIST",
    "UNFOLLOWED",
    "VOID",
    "Arriving",
    "GuardedDoor",
    "Question",
    "Unguarded",
    "Word",
)  # fmt: skip
