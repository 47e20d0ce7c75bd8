# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command ``portknock``: reads its command line, does what it says, and tells what came of it."""

import json
import os
import sys
from typing import Any, Callable, Dict, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import Agent
from ansible_collections.sesame.portknock.plugins.module_utils._change.agent_program import sentence_of, undo_now
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import kept_options
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect, wanted_spec
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import (
    CONFIRMED,
    ROLLED_BACK,
    OtherVersionError,
)
from ansible_collections.sesame.portknock.plugins.module_utils._change.rollback import call_its_program
from ansible_collections.sesame.portknock.plugins.module_utils._command.doors import (
    add_openings,
    close,
    hold_open,
    open_door,
)
from ansible_collections.sesame.portknock.plugins.module_utils._command.in_panic import in_panic
from ansible_collections.sesame.portknock.plugins.module_utils._command.metrics import metrics_text, write_metrics
from ansible_collections.sesame.portknock.plugins.module_utils._command.panic import panic, resume
from ansible_collections.sesame.portknock.plugins.module_utils._command.parser import parser
from ansible_collections.sesame.portknock.plugins.module_utils._command.status import check, status_text
from ansible_collections.sesame.portknock.plugins.module_utils._command.verbs import (
    DONE,
    FAILED,
    NOT_ROOT,
    UNKNOWN,
    USAGE,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import PortknockError, WrongWordError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import this_host

_LOCK_SECONDS = 10


def main(words: Sequence[str]) -> int:
    """Do what the command line says; return the exit code."""
    host = this_host(PlainRunner())
    if list(words[:1]) == ["hold"] and host.processes.is_root():
        return _hold(words[1:], host)
    arguments = parser().parse_args(list(words))
    try:
        if not host.processes.is_root():
            sys.stderr.write("portknock: this needs root. Log in as root, or put sudo in front of it.\n")
            return NOT_ROOT
        return _VERBS[arguments.verb](arguments, host)
    except WrongWordError as error:
        sys.stderr.write(f"portknock: {error}. Try: portknock {arguments.verb} --help\n")
        return USAGE
    except PortknockError as error:
        sys.stderr.write(f"portknock: {error}\n")
        return UNKNOWN if getattr(arguments, "check", False) else FAILED
    except BrokenPipeError:
        # What reads the output has ended, and nothing is to be said of that when Python ends either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED


def _say(text: str) -> None:
    # Comments of rules are in any language, and the terminal of a console is not.
    encoding = sys.stdout.encoding or "ascii"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(shown if shown.endswith("\n") else shown + "\n")
    sys.stdout.flush()


def _status(arguments: Any, host: Any) -> int:
    found = _looked_at(host)
    found["doors"] = add_openings(host, found["doors"])
    spec = wanted_spec(host) if found["panic"] else None
    found["in_panic"] = in_panic(spec, host.sockets.connected()) if spec else {}
    code, line = check(found)
    if arguments.json:
        _say(json.dumps(dict(found, state=line, code=code), indent=2, sort_keys=True))
    else:
        _say(line if arguments.check else status_text(found))
    return code if arguments.check else DONE


def _looked_at(host: Any) -> Dict[str, Any]:
    """Return what there is on the host, without the findings that were acknowledged."""
    found, known = inspect(host), kept_options(host).get("acknowledge", [])
    return dict(found, findings=[each for each in found["findings"] if each["kind"] not in known])


def _end(arguments: Any, host: Any) -> int:
    """Confirm the pending change or roll it back, with the program of its own version where that is another one."""
    try:
        return (_confirm if arguments.verb == "confirm" else _rollback)(host)
    except OtherVersionError:
        code, out, err = call_its_program(host, arguments.verb)
        if code:
            raise PortknockError((out + err).strip()) from None
        _say(out)
        return DONE


def _confirm(host: Any) -> int:
    guard = Guard(host, Agent(host))
    with host.lock.hold(_LOCK_SECONDS):
        session, name = host.processes.session(), _pending(guard)
        # Over ssh by its id, as the controller does it: then a connection that is older than the change is no proof.
        answer = guard.confirm(name if session[0] else "", session)
    return _ended(answer, CONFIRMED)


def _rollback(host: Any) -> int:
    guard = Guard(host, Agent(host))
    with host.lock.hold(_LOCK_SECONDS):
        answer = undo_now(guard, host, _pending(guard))
    return _ended(answer, ROLLED_BACK)


def _pending(guard: Guard) -> str:
    """Return the id of the change that is pending.

    :raises PortknockError: if there is none, with how the last one ended.
    """
    record = guard.pending()
    if record is None:
        last = guard.ended("")
        ended = sentence_of(last)
        raise PortknockError(ended if last["outcome"] == "unknown" else f"No change is pending. The last one: {ended}")
    return record.id


def _ended(answer: Dict[str, Any], wanted: str) -> int:
    if answer["outcome"] == wanted:
        _say(sentence_of(answer))
        return DONE
    raise PortknockError(sentence_of(answer))


def _open(arguments: Any, host: Any) -> int:
    _say(open_door(host, arguments.door, arguments.address, arguments.seconds))
    return DONE


def _close(arguments: Any, host: Any) -> int:
    _say(close(host, arguments.door_address))
    return DONE


def _panic(_arguments: Any, host: Any) -> int:
    _say(panic(host))
    return DONE


def _resume(_arguments: Any, host: Any) -> int:
    _say(resume(host))
    return DONE


def _metrics(arguments: Any, host: Any) -> int:
    text = metrics_text(_looked_at(host))
    if arguments.write:
        write_metrics(host, arguments.write, text)
    else:
        _say(text)
    return DONE


def _hold(words: Sequence[str], host: Any) -> int:
    """Keep a door open: for the program itself, so neither help nor manual names it."""
    # Whoever has started it waits for this.
    _say("armed")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    hold_open(host, *words)
    return DONE


_VERBS: Dict[str, Callable[[Any, Any], int]] = {
    "status": _status,
    "open": _open,
    "close": _close,
    "panic": _panic,
    "resume": _resume,
    "metrics": _metrics,
    "confirm": _end,
    "rollback": _end,
}


__all__ = ("main",)
