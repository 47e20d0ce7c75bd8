# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of knock_verify: what the host says of itself, what is seen from here, and what both together mean.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError, resolve
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import local_address
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.command import is_ssh
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath, is_address, ssh_path
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import (
    FACTS_SCRIPT,
    HostFacts,
    addresses_to_try,
    read_facts,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.judge import (
    Context,
    seconds_open,
    wants_counters,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.observe import Observer, RealNetwork
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.table import (
    host_rows,
    jump_row,
    result_of,
    rows,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils.any_shell import for_any_shell

INFO_MODULE = "sesame.portknock.knock_ruleset_info"
_UNREACHABLE = {"unreachable": True}


def verify(action: ActionBase, spec: Spec, longest_wait: int, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the task: ask the host, look at its doors from here, and judge.

    A host that cannot be reached, because its door is closed and this connection does not knock, is tried all the same.

    :raises AnsibleError: if a variable cannot be used.
    """
    knock = send_knock.knock_from_variables(task_vars, action._templar.template, spec.engine)
    text = _ask_facts(action)
    facts = read_facts(text or "")
    path = _path(action, knock.host)
    found = addresses_to_try(_known_addresses(path, facts), facts, spec, local_address)
    with _alone([each.address for each in found if each.address] or [path.host]):
        info = _ask_info(action, task_vars) if text is not None else _UNREACHABLE
        if info.get("failed"):
            return info
        if knock.via == send_knock.JUMP or (knock.via == send_knock.AUTO and path.jumps):
            context = Context(spec, {}, info, {}, longest_wait)
            return result_of([jump_row(path.jump or path.proxy_command), *host_rows(context)], {})
        context = Context(spec, {each.family: each for each in found}, info, {}, longest_wait)
        network = RealNetwork(spec.engine, knock.pause, path.source)
        visible = [each for each in found if not each.unseen]
        chooser = random.SystemRandom().randint
        seen = Observer(spec, visible, network, longest_wait, seconds_open(info), chooser).run()
        if wants_counters(seen, context):
            context = context._replace(info_after=_ask_counters(action, task_vars))
    return result_of(rows(seen, context), seen)


@contextlib.contextmanager
def _alone(addresses: Iterable[str]) -> Iterator[None]:
    """Let one task of this user look at a host at a time: one under another name would see the doors that this one opens."""
    directory = os.path.join(constants.config.get_config_value("ANSIBLE_HOME"), "cp")
    with contextlib.ExitStack() as stack:
        # In the same order everywhere, so that no two wait for each other.
        for address in sorted(set(addresses)):
            stack.enter_context(send_knock.one_at_a_time(directory, f"verify {address}"))
        yield


def _ask_facts(action: ActionBase) -> str | None:
    """Return what the host prints about its addresses, None where it cannot be reached."""
    try:
        # As the user who logged in.
        done = action._low_level_execute_command(for_any_shell(FACTS_SCRIPT), sudoable=False)
    except AnsibleConnectionFailure:
        return None
    return str(done.get("stdout", ""))


def _ask_info(action: ActionBase, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(action._execute_module(module_name=INFO_MODULE, module_args={}, task_vars=task_vars))
    except AnsibleConnectionFailure:
        return _UNREACHABLE


def _ask_counters(action: ActionBase, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """Return the host's report once more, empty where it gives none: by now its door may be closed again."""
    info = _ask_info(action, task_vars)
    return info if "doors" in info else {}


def _path(action: ActionBase, knock_host: str) -> SshPath:
    """Return the path that ssh takes to the host, or to the host to knock at."""
    connection = action._connection
    if is_ssh(connection):
        return ssh_path(connection, host=knock_host)
    return SshPath(host=knock_host or action._play_context.remote_addr, port=0, family="any", user="")


def _known_addresses(path: SshPath, facts: HostFacts) -> tuple[str, ...]:
    """Return the addresses of the host that this machine knows, or the one that ssh came in by."""
    if is_address(path.host):
        return (path.host,)
    try:
        return resolve(path.host)
    except KnockError:
        return (facts.server,) if facts.server else ()
