# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of the command ``portknock``, as a module that runs on the host leaves them there."""

import hashlib
import json
from typing import Any, Dict, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.archive import archive
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import MARK, Program
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import Change, plan_change, result_of
from ansible_collections.sesame.portknock.plugins.module_utils._change.unchanged import code_of_module
from ansible_collections.sesame.portknock.plugins.module_utils._paths import COMMAND, COMPLETION, MANUAL


def plan_with_command(options: Dict[str, Any], host: Any, **more: bool) -> Tuple[Change, Dict[str, Any]]:
    """Plan a change that has the host's command as this code makes it.

    :param more: as plan_change() takes it.
    :returns: the Change, and the module's result.
    """
    change = plan_change(options, host, command=program(options), **more)
    return change, result_of(change)


def program(options: Dict[str, Any]) -> Program:
    """Return what is to be the command of this host, with the options of the change that it comes with."""
    code = hashlib.sha256(json.dumps(code_of_module()).encode()).hexdigest()
    # What a run may do to other firewalls is no state of the host: another word for it is no change.
    return Program(code, _build, {"persist": options["persist"]})


def _build(python: str) -> Dict[str, str]:
    # It takes some time, and most runs do not need it.
    from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import import_late
    from ansible_collections.sesame.portknock.plugins.module_utils._command import program as _program
    from ansible_collections.sesame.portknock.plugins.module_utils._command.manual import completion, manual
    from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
    from ansible_collections.sesame.portknock.plugins.module_utils._host.host import this_host

    import_late(this_host(PlainRunner()))
    data = archive(_program.__name__, f"#!{python} -ISB\n# {MARK}; changes to this file are lost.\n", small=True)
    return {
        COMMAND: data.decode("utf-8", "surrogateescape"),
        COMPLETION: completion(),
        MANUAL: manual(),
    }


__all__ = ("plan_with_command", "program")
