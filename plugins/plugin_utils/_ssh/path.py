# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network path that ssh takes to a host, so that a knock takes the same, also through a jump host."""

from __future__ import annotations

import getopt
import inspect
import ipaddress
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._client import knock as _knock
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import PAUSE, KnockError, Steps, resolve
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.command import ssh_command

DUMP_SECONDS = 10
"""Seconds for ``ssh -G``, which only reads files, and runs what they say in Match exec."""

JUMP_SECONDS = 30
"""Seconds to log in to a jump host and knock from there, pauses not counted."""

SLOW_LOOKUP = 1.0
"""Seconds from which on looking a name up counts as slow."""

_SSH_PORT = 22
_NO = ("", "none")
_CONNECT_PROGRAM = "portknock-connect."
_JUMP_PROGRAM = "portknock-jump."
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


class SshPath(NamedTuple):
    """What a knock must know of the path that ssh takes."""

    host: str
    """The name or address after the aliases of ssh's configuration."""
    port: int
    """The port of the host's sshd; 0 where the connection is not ssh."""
    family: str
    """``any``, ``inet`` or ``inet6``."""
    user: str
    """The name that ssh logs in with."""
    jump: str = ""
    """The value of ProxyJump, or nothing."""
    proxy_command: str = ""
    """The value of ProxyCommand, or nothing."""
    source: str = ""
    """The address that ssh sends from, where its configuration names one."""
    host_key_alias: str = ""
    """The name that the host's key is kept under, where ssh's configuration names one."""
    timeout: int = 0
    """The seconds that ssh waits for an address (ConnectTimeout), 0 for the system's own limit."""

    @property
    def jumps(self) -> bool:
        """Whether ssh reaches the host through another one."""
        return bool(self.jump or self.proxy_command)


def ssh_path(connection: Any, patience: float = DUMP_SECONDS, host: str = "") -> SshPath:
    """Ask ssh itself which path it would take for a connection of core's ssh plugin.

    Where the connection's executable does not know ``-G``, the plugin's options have to do.

    :param host: another host to ask about than the connection's own.
    """
    words = ssh_command(connection, "-G", host or _host_of(connection))
    try:
        code, text, _errors = _run(words, "", patience)
    except (OSError, subprocess.TimeoutExpired):
        code, text = None, ""
    path = path_of_dump(text) if code == 0 else None
    return path or _path_of_options(connection, host)


def path_of_dump(text: str) -> SshPath | None:
    """Read the output of ``ssh -G``; None where it is something else. Pure."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, _blank, value = line.partition(" ")
        facts.setdefault(key.lower(), value.strip())
    if not facts.get("hostname") or not facts.get("port", "").isdigit():
        return None
    family = facts.get("addressfamily", "any")
    jump, command, source, alias, timeout = (
        facts.get(key, "") for key in ("proxyjump", "proxycommand", "bindaddress", "hostkeyalias", "connecttimeout")
    )
    if _CONNECT_PROGRAM in command:
        # The playbook client_config wrote it: it connects directly.
        command = ""
    if _JUMP_PROGRAM in command:
        # So it wrote this one, which knocks by a jump host itself: NAME %h %p, and the arguments that lead there.
        arguments = command.partition(_JUMP_PROGRAM)[2].partition(" %p ")[2]
        command = f"ssh -W %h:%p {arguments}"
    return SshPath(
        host=facts["hostname"],
        port=int(facts["port"]),
        family=family if family in ("inet", "inet6") else "any",
        user=facts.get("user", ""),
        jump="" if jump.lower() in _NO else jump,
        proxy_command="" if command.lower() in _NO else command,
        source=source if is_address(source) else "",
        host_key_alias=alias,
        timeout=int(timeout) if timeout.isdigit() else 0,
    )


def is_address(text: str) -> bool:
    """Return whether a text is an IP address, with or without a zone."""
    try:
        ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    return True


def addresses_of(path: SshPath) -> tuple[str, ...]:
    """Return the addresses that ssh tries on this path, in its order.

    :raises KnockError: if the host has none.
    """
    return resolve(path.host, path.family)


class Lookup(NamedTuple):
    """What this machine found out about the host's name."""

    addresses: tuple[str, ...] = ()
    """The addresses that ssh tries one after the other; none where a jump host looks them up, or there are none."""
    seconds: float = 0.0
    """How long that took."""


def look_up(path: SshPath) -> Lookup:
    """Look up the addresses that this machine tries."""
    if path.jumps:
        return Lookup()
    if is_address(path.host):
        return Lookup((path.host,))
    begun = time.monotonic()
    try:
        return Lookup(addresses_of(path), time.monotonic() - begun)
    except KnockError:
        return Lookup()


def options_without_lookup(path: SshPath, lookup: Lookup, turn: int) -> tuple[str, ...]:
    """Return the options with which ssh need not look a name up that takes long: the window of the door would be over by then.

    The host's key is still that of its name. Where there are several addresses, each turn has another one.
    """
    if lookup.seconds < SLOW_LOOKUP or not lookup.addresses:
        return ()
    alias = path.host.lower() if path.port == _SSH_PORT else f"[{path.host.lower()}]:{path.port}"
    address = lookup.addresses[turn % len(lookup.addresses)]
    return (f"HostName={address.replace('%', '%%')}", f"HostKeyAlias={path.host_key_alias or alias}")


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
    words = jump_command(path, ssh_command(connection, _host_of(connection)))
    limit = patience + 2 * pause * len(steps) + settle
    try:
        _code, text, errors = _run(words, jump_script(path.host, steps, pause, settle), limit)
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


def _host_of(connection: Any) -> str:
    return str(connection.get_option("host") or connection.host)


def _path_of_options(connection: Any, host: str) -> SshPath:
    port, user = connection.get_option("port"), connection.get_option("remote_user")
    return SshPath(host or _host_of(connection), int(port or 22), "any", str(user or ""))


def _run(words: Sequence[str], data: str, seconds: float) -> tuple[int, str, str]:
    """Run a command within a time; return (exit code, output, errors).

    Its output goes to files: a control master that ssh leaves behind would keep a pipe open.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # In a session of its own it cannot ask for a password, and is ended with all that it started.
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True)
        try:
            process.communicate(data.encode(), seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return process.returncode, out.read().decode(errors="replace"), err.read().decode(errors="replace")
