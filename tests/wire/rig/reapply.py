# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Applies two sets of options in turn, many times in one process, each time as the module does it.

Usage: reapply.py TIMES OPTIONS.json  (a list of two sets). Prints how many runs changed something.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rig.target import use_collection

use_collection()
from ansible.module_utils import basic  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent_program  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import Agent  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import this_host  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._spec.argument_spec import argument_spec  # noqa: E402


def module_with(options: dict[str, Any]) -> basic.AnsibleModule:
    """Return an AnsibleModule for the options."""
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": options}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    return basic.AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)


def main() -> None:
    """Apply."""
    times, path = sys.argv[1:]
    modules = [module_with(dict(options, guard=False)) for options in json.loads(Path(path).read_text())]
    changes = 0
    for turn in range(int(times)):
        module = modules[turn % 2]
        host = this_host(module)
        change = plan_change(module.params, host)
        guard = Guard(host, Agent(host, agent_program.__name__))
        changes += bool(change.changed)
        if change.changed:
            guard.keep(guard.apply(change, module.params))
    print(changes)


if __name__ == "__main__":
    main()
