# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done about what is found."""

from __future__ import annotations


class ModuleDocFragment:
    """What stops a change, and what need not be shown."""

    DOCUMENTATION = r"""
options:
  prove:
    description:
      - Before anything is changed, and in check mode, the tables raw, mangle, nat and filter are walked as they would be in the kernel
        and after the next boot, for all first packets of connections at once. RV(proof) says what came of it.
      - If a packet gets to the ports of a door without the knock, the change is refused, and the packet and the rule that lets it in are
        shown. The same holds if a rule of others would refuse every new connection like the one that the change is made through,
        although it has knocked. With V(false) that is a finding instead.
    type: bool
    default: true
  acknowledge:
    description:
      - Kinds of findings that are known and need not be shown again, such as V(list_size). The role does not print them; they are
        still returned, with RV(findings[].acknowledged) set.
      - Findings of severity V(error) cannot be acknowledged. The file C(docs/findings.md) of the collection has all kinds.
    type: list
    elements: str
    default: []
"""
