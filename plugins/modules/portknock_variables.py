#!/usr/bin/python
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: portknock_variables
short_description: Check the variables of the role before anything is touched
version_added: 1.1.0
description:
  - Refuses variables whose names begin with C(portknock_) and that the role P(sesame.portknock.portknock#role) does not have, with
    the nearest name that it has, wherever they are set - in the inventory, in a play, for one include of the role or with C(-e).
  - Checks the values of the role's variables as M(sesame.portknock.knock_ruleset) checks its options.
  - What a task has registered is no mistake, and what M(ansible.builtin.set_fact) made is one only if its name is near that of one
    of the role's variables. The variables of the collection's playbooks are known.
  - The role runs it first. It runs on the controller and does not connect to the host.
author:
  - sesame.portknock contributors (@sesame)
extends_documentation_fragment:
  - sesame.portknock.attributes.read_only
attributes:
  platform:
    description: Any that Ansible's controller runs on.
    support: full
    platforms: posix
options:
  entry_point:
    description:
      - The entry point of the role whose variables are checked. With V(remove) only those of the guard are looked at.
    type: str
    choices: [main, remove]
    default: main
seealso:
  - module: sesame.portknock.knock_ruleset
"""

EXAMPLES = r"""
- name: Check the variables
  sesame.portknock.portknock_variables:
"""

RETURN = r""" # """
