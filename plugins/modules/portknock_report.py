#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: portknock_report
short_description: Show what a run has changed and found
version_added: 1.1.0
description:
  - Prints, as plain lines, what M(sesame.portknock.knock_ruleset) changed on a host, what to do now to get in, and what it found;
    and what M(sesame.portknock.knock_verify) saw, as a table of all hosts. Prints nothing where there is nothing to say.
  - Where the configured callback writes for programs (C(json), C(jsonl), C(null)), nothing is printed; RV(msg) has the lines.
  - The role P(sesame.portknock.portknock#role) runs it. It does not connect to the host.
author:
  - sesame.portknock contributors (@sesame)
extends_documentation_fragment:
  - sesame.portknock.attributes.read_only
attributes:
  action:
    description: Runs on the controller alone.
    support: full
  platform:
    description: Any that Ansible's controller runs on.
    support: full
    platforms: posix
options:
  change:
    description:
      - The result of M(sesame.portknock.knock_ruleset).
    type: dict
    default: {}
  fleet:
    description:
      - Whether to show a table of all hosts of the play, from what the role has left of them. Only shown where the play has more than
        one host, and only once no host is left to begin with, or a host of this batch has failed.
      - A host where a task of the role has failed fails here once more, if the failure was noted, as the playbook C(site) does.
    type: bool
    default: false
    version_added: 1.1.0
  host:
    description:
      - The result of M(sesame.portknock.portknock_host). In check mode, what would be installed is shown.
    type: dict
    default: {}
  verified:
    description:
      - Names of hosts for which the entry point C(verify) of the role was run, for the table.
    type: list
    elements: str
    default: []
seealso:
  - module: sesame.portknock.knock_ruleset
  - module: sesame.portknock.knock_verify
"""

EXAMPLES = r"""
- name: Write the ruleset
  sesame.portknock.knock_ruleset:
    doors: "{{ portknock_doors }}"
  register: written

- name: Show what has changed
  sesame.portknock.portknock_report:
    change: "{{ written }}"
"""

RETURN = r"""
msg:
  description: The lines.
  returned: success
  type: list
  elements: str
"""
