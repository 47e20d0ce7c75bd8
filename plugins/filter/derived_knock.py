# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: derived_knock
short_description: Work out a knock for each host and door from one secret
version_added: 1.1.0
author:
  - sesame.portknock contributors (@sesame)
description:
  - Gives each host and door a knock of its own, always the same one for the same secret, host and door. So a fleet has one secret
    in its vault, and a host that is taken over gives away its own knocks and not those of the others.
  - The steps are TCP ports from 10001 on, at least 100 apart, none that is popular, and from three steps on neither rising nor falling.
  - The steps are as secret as the secret - who knows it can work out all of them. It must be long and random, because whoever sees
    a knock on the network can try secrets until one gives these steps.
  - A step that is also a port of a door or an allowed port of the host is refused by the role as always; name such a door otherwise.
positional: host, door, steps
options:
  _input:
    description:
      - The secret, 16 characters or more. C(openssl rand -base64 24) makes one. Keep it in Ansible Vault.
    type: str
    required: true
  host:
    description:
      - What tells the host from all others, mostly V(inventory_hostname). A host that gets another name gets another knock.
    type: str
    required: true
  door:
    description: The name of the door.
    type: str
    required: true
  steps:
    description: How many steps the knock has, from 1 to 8.
    type: int
    default: 3
seealso:
  - plugin: sesame.portknock.portknock
    plugin_type: role
"""

EXAMPLES = r"""
- name: Close ssh of each host behind a knock of its own
  hosts: guarded
  become: true
  gather_facts: false
  roles:
    - role: sesame.portknock.portknock
      vars:
        portknock_doors:
          - name: ssh
            knock: "{{ vault_knock_secret | sesame.portknock.derived_knock(inventory_hostname, 'ssh') }}"
            opens: [22]
"""

RETURN = r"""
_value:
  description: The steps, in their order.
  type: list
  elements: int
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sesame.portknock.plugins.plugin_utils.derived_steps import (
    LEAST_SECRET,
    MOST_STEPS,
    derived_steps,
)


def derived_knock(master: Any, host: Any, door: Any, steps: Any = 3) -> list[int]:
    """Return the steps, each a TCP port."""
    for name, value in (("host", host), ("door", door)):
        if not isinstance(value, str) or not value:
            raise AnsibleFilterError(f"derived_knock: {name} must be a text that is not empty.")
    # Never shown, whatever it is.
    if not isinstance(master, str) or len(master) < LEAST_SECRET:
        raise AnsibleFilterError(
            f"derived_knock: the secret must be a text of {LEAST_SECRET} characters or more: whoever sees one knock could try all "
            "shorter ones. Make one with openssl rand -base64 24, and keep it in a vault."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise AnsibleFilterError(f"derived_knock: steps must be a whole number from 1 to {MOST_STEPS}.")
    return derived_steps(master, host, door, steps)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to function."""
        return {"derived_knock": derived_knock}
