# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of a change that was undone: of the collection's own things alone, as nothing else was compared. Pure."""

from typing import Optional

from ansible_collections.sesame.portknock.plugins.module_utils._engine import EMPTIED, EXACT, SNAPSHOT

_SENTENCES = {
    EXACT: (
        "The collection's rules, files and services are as they were before the change; rules of others were not touched."
    ),
    SNAPSHOT: (
        "The rules could not be undone one by one, so the whole filter table was put back as it was before: "
        "what others changed in it meanwhile is lost."
    ),
    EMPTIED: (
        "The ruleset could not be read or restored, so it could not be put back as it was: the collection's chains were emptied "
        "instead, and refuse nothing any more. 'nft list ruleset' and 'iptables-save' show what is left of them, and what hides them; "
        "once iptables or nft can read its tables again, the next run puts the doors back, or with 'state: absent' takes out the rest."
    ),
}


def undone_sentence(undo: str) -> str:
    """Return a sentence or two about what an undo has left.

    :param undo: EXACT, SNAPSHOT, EMPTIED, or '' where that is not known.
    """
    return _SENTENCES.get(undo, "How much of it was undone is not known: look at the rules on the host.")


def why_untracked(port: str, door: str, rule: Optional[str]) -> str:
    """Return why a change was undone that a connection confirmed which the kernel does not track.

    :param door: the door that the connection came through.
    :param rule: the rule that keeps it out of connection tracking, '' where none keeps any out, None where one may be the reason.
    """
    if rule:
        cause = f"A rule of table raw keeps it out: {rule}. Take the door's ports out of that rule, {_OR_TRUST}"
    elif rule is None:
        cause = (
            "Either a rule says notrack for that port: find it with 'iptables -t raw -S' or 'nft list ruleset' and take the door's "
            f"ports out of it, {_OR_TRUST}. Or its {_FLUSHED}"
        )
    else:
        cause = f"No rule of this host says notrack. Its {_FLUSHED}"
    return (
        f"the host does not track the new connection to port {port} (conntrack), so it would break when the window of door {door} "
        f"ends. {cause}"
    )


_OR_TRUST = "or put this controller into trusted_sources"
_FLUSHED = "entry was deleted after the connection was made, as 'conntrack -F' does: find out what does so, then run this again"


__all__ = ("undone_sentence", "why_untracked")
