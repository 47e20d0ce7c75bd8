# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A knock that the jump host of a path sends, reached as ssh itself reaches it."""

from __future__ import annotations

import getopt
import inspect
import re
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

from ansible_collections.sesame.portknock.plugins.module_utils._client import knock as _knock
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import PAUSE, KnockError, Steps
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.command import host_of, run_within, ssh_command
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath

JUMP_SECONDS = 30
"""Seconds to log in to a jump host and knock from there, pauses not counted."""

# ssh's own short options; those with a colon take a value.
_OPTIONS = "1246ab:c:e:fgi:kl:m:no:p:qstvxAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XYy"
# A control master of the jump host is used where there is one, but none is left behind; what its Host block adds to a login
# does not matter.
_QUIET = [
    word
    for option in (
        "BatchMode=yes",
        "ControlMaster=no",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "RemoteCommand=none",
        "RequestTTY=no",
    )
    for word in ("-o", option)
]
# `ssh … -W %h:%p … bastion`, and nothing in it that only a shell understands beyond ~ and $HOME.
_JUMP = re.compile(
    r"(?P<program>(?:[^\s'\"]*/)?ssh)(?P<before>(?:\s.*)?\s)-W\s*(['\"]?)\[?%h\]?:%p\3(?P<after>\s.*|)\Z"
)
_SHELL_ONLY = re.compile(r"[;&|<>`\n]|\$\(")
_MARK = "#-- bash"
_SAID = "portknock: "
# Both programs come in over standard input, one behind the other, so that no process list shows a step.
_REMOTE = (
    "exec sh -c '"
    'if python3 -IS -c "import sys; sys.exit(sys.version_info < (3, 6))" </dev/null >/dev/null 2>&1; '
    f'then sed "/^{_MARK}/q" | python3 -IS - 2>/dev/null; '
    f'elif command -v bash >/dev/null 2>&1; then sed "1,/^{_MARK}/d" | bash 2>/dev/null; '
    f'else echo "{_SAID}it has neither python3 nor bash"; fi\''
)

_PYTHON = """
try:
    send_knock(resolve({host!r}), {steps!r}, {pause!r}, settle={settle!r})
    print("{said}sent")
except OSError as error:
    print("{said}" + str(error))
"""
# A connect to a port that drops hangs in bash, and would send its SYN again: it is ended before.
_BASH = """
host={host}
addresses=$host
if command -v getent >/dev/null; then
    addresses=$(getent ahosts "$host" | while read -r address kind rest; do
        [[ $kind != STREAM ]] || echo "$address"
    done)
fi
[[ -n $addresses ]] || {{ echo "{said}$host has no address to knock at"; exit; }}
knock() {{
    for step in {steps}; do
        for address; do
            if [[ $step == udp/* ]]; then
                printf '\\0' >"/dev/udp/$address/${{step#*/}}"
            else
                (exec 3<>"/dev/tcp/$address/${{step#*/}}") &
            fi
        done
        sleep {hold}
        kill $(jobs -p)
        wait
        sleep {rest}
    done
}}
if [[ {settle} == 0.000 ]]; then
    knock $addresses
else
    for each in $addresses; do
        knock "$each"
    done
    sleep {settle}
fi
echo "{said}sent"
"""


def knock_via_jump(
    connection: Any,
    path: SshPath,
    steps: Steps,
    pause: float = PAUSE,
    patience: float = JUMP_SECONDS,
    settle: float = 0.0,
) -> None:
    """Knock from the last jump host of a path, reached as ssh itself reaches it.

    :param settle: seconds that the host needs after the last step.
    :raises KnockError: if there is no jump host, it cannot be reached, or it could not knock.
    """
    words = jump_command(path, ssh_command(connection, host_of(connection)))
    limit = patience + 2 * pause * len(steps) + settle
    try:
        _code, text, errors = run_within(words, jump_script(path.host, steps, pause, settle), limit)
    except subprocess.TimeoutExpired:
        text, errors = "", f"no answer within {limit:.0f} s"
    except OSError as error:
        text, errors = "", str(error.strerror)
    said = re.findall(f"^{_SAID}(.*)$", text, re.M)
    if said[-1:] != ["sent"]:
        reason = (said or errors.strip().splitlines() or ["it printed nothing"])[-1].strip().rstrip(".")
        raise KnockError(
            f"the knock was not sent by the jump host of {path.host}: {reason}. A command must run there by ssh "
            "without a question being asked."
        )


def jump_command(path: SshPath, words: Sequence[str]) -> list[str]:
    """Return the command that runs the knock's program on the last jump host. Pure.

    ssh logs in to a jump host with its configuration alone (``-F``), whatever options the target is given: so do we.

    :param words: the ssh command for the target, for its program and its ``-F``.
    :raises KnockError: if the path has no jump host.
    """
    if path.jump:
        return _through_proxy_jump(path.jump, words)
    if path.proxy_command:
        return _through_proxy_command(path)
    raise KnockError(f"there is no jump host on the path to {path.host}.")


def _through_proxy_jump(jump: str, words: Sequence[str]) -> list[str]:
    before, _comma, last = jump.rpartition(",")
    user, host, port = destination(last)
    options = [("-F", config_of(words)), ("-l", user), ("-p", port), ("-J", before)]
    given = [word for option, value in options if value for word in (option, value)]
    return [words[0], *_QUIET, *given, "--", host, _REMOTE]


def jump_arguments(path: SshPath, config: str = "") -> str:
    """Return the arguments of ssh that lead to the jump host of a path, for a shell, with the tokens of a ProxyCommand. Pure.

    :param config: the file that ssh is given as its configuration, '' for the usual ones.
    :raises KnockError: if there is no host on the path that could knock.
    """
    if path.jump:
        words = _through_proxy_jump(path.jump, ["ssh", *(["-F", config] if config else [])])
        return shlex.join(words[len(_QUIET) + 1 : -1]).replace("%", "%%")
    found = _proxy_command_of(path)
    return str(found["before"] + found["after"]).strip()


def destination(text: str) -> tuple[str, str, str]:
    """Split what ssh takes for a jump host, [user@]host[:port], ssh:// before it or not, into user, host and port. Pure."""
    user, _at, target = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    found = re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", target)
    if not found:
        return user, target, ""
    return user, found[1] or found[3], found[2] or found[4] or ""


def config_of(words: Sequence[str]) -> str:
    """Return the configuration that a command of ssh names, '' for none. Pure."""
    try:
        options, _rest = getopt.getopt(list(words[1:]), _OPTIONS)
    except getopt.GetoptError:
        return ""
    # The last one counts, as it does for ssh.
    return dict(options).get("-F", "")


def _through_proxy_command(path: SshPath) -> list[str]:
    """Run the user's own ``ssh -W %h:%p bastion`` by a shell, as ssh does, with our command in place of ``-W``."""
    found = _proxy_command_of(path)
    command = " ".join([found["program"], *_QUIET, _expand(found["before"] + found["after"], path)])
    return ["/bin/sh", "-c", f"exec {command} {shlex.quote(_REMOTE)}"]


def _proxy_command_of(path: SshPath) -> re.Match[str]:
    text = path.proxy_command.strip().removeprefix("exec ").lstrip()
    found = None if _SHELL_ONLY.search(text) else _JUMP.fullmatch(text)
    if not found:
        raise KnockError(
            f"ssh reaches {path.host} by a ProxyCommand that is not of the form `ssh -W %h:%p JUMP_HOST`, so there is no host "
            "that could knock. Use ProxyJump, or knock from elsewhere."
        )
    return found


def _expand(text: str, path: SshPath) -> str:
    """Expand the tokens that ssh knows in a ProxyCommand."""
    values = {"%%": "%", "%h": path.host, "%p": str(path.port), "%r": path.user}
    unknown = set(re.findall("%.?", text)) - set(values)
    if unknown:
        raise KnockError(f"the ProxyCommand to {path.host} has {min(unknown)} in it, which only ssh can expand.")
    return re.sub("%.", lambda found: values[found[0]], text)


def jump_script(host: str, steps: Steps, pause: float = PAUSE, settle: float = 0.0) -> str:
    """Return what the jump host runs, for python3 and behind it for bash. Pure.

    The jump host looks the name up and tries every address it finds, as its sshd does when it connects.
    """
    plain = tuple((int(port), str(protocol)) for port, protocol in steps)
    # bash needs a moment to start what connects.
    hold = min(max(pause, 0.05), _knock.HOLD)
    bash = _BASH.format(
        host=shlex.quote(host),
        steps=" ".join(f"{protocol}/{port}" for port, protocol in plain),
        hold=f"{hold:.3f}",
        rest=f"{max(0, pause - hold):.3f}",
        settle=f"{settle:.3f}",
        said=_SAID,
    )
    python = _PYTHON.format(host=host, steps=plain, pause=float(pause), settle=float(settle), said=_SAID)
    return "\n".join([inspect.getsource(_knock), python, _MARK, bash])
