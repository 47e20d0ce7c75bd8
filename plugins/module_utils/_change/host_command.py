# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part that every engine has: the command ``portknock`` for the administrator of the host, and what belongs to it.

Making its files takes longer than all the rest of a small change. So what they were made of is remembered, and they are made
again only where that differs, or where a file is not as it was written.
"""

import hashlib
import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.metrics_timer import (
    is_off,
    switch,
    timer_before,
    timer_files,
)
from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    ABSENT_FILE,
    Files,
    Loaded,
    PartOutsideKernel,
    PartPlan,
    Report,
    Wanted,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    COMMAND,
    COMPLETION,
    MANUAL,
    METRICS_TIMER,
    OPTIONS,
    PYTHONS,
    STATE_FILE,
    UNITS,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.canonical import options_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS

MODES = {COMMAND: 0o755, COMPLETION: 0o644, MANUAL: 0o644}
"""The files, and their permission bits."""
MARK = "Written by sesame.portknock"
"""What stands in the beginning of each of them."""
_REMEMBERED = "command"
PANIC = "panic"
"""The name under which it is remembered that the host is in panic, with ``since``, in seconds since 1970."""


class Program(NamedTuple):
    """What is installed as the command of a host."""

    code: str
    """A digest of what it is made of."""
    build: Callable[[str], Dict[str, str]]
    """Returns path to text of its files, given the path of the Python that runs it."""
    options: Dict[str, Any]
    """Those options of the change that no Spec holds."""


class HostCommand(PartOutsideKernel):
    """The command of this host."""

    name = "command"

    # Planning

    def plan(self, wanted: Wanted) -> PartPlan:
        remembered = wanted.state.get(_REMEMBERED, {})
        plan = PartPlan(self.name, wanted, loads=False)
        if wanted.spec is None:
            files: Files = {path: ABSENT_FILE for path in MODES if self._is_ours(path)}
            if self._host.filesystem.mode(OPTIONS) is not None:
                files[OPTIONS] = ABSENT_FILE
            files.update(timer_files(self._host, wanted))
            return plan._replace(files=files, before=self._before(wanted, remembered.get("directories", [])))
        plan = plan._replace(remembered=_panic(wanted))
        if wanted.command is None:
            return plan
        plan = plan._replace(keeps=is_off(self._host, wanted), before=self._before(wanted, []))
        return self._plan_files(plan, wanted, remembered)

    def _before(self, wanted: Wanted, directories: List[str]) -> Dict[str, Any]:
        was = json.loads(self._host.filesystem.read(OPTIONS) or "{}").get("metrics_directory", "")
        return {"directories": directories, "timer": timer_before(self._host, wanted, was)}

    def _plan_files(self, plan: PartPlan, wanted: Wanted, remembered: Dict[str, Any]) -> PartPlan:
        kept = json.dumps(dict(options_of(wanted.spec), **wanted.command.options), sort_keys=True) + "\n"
        plan = plan._replace(files=dict(timer_files(self._host, wanted), **{OPTIONS: (kept, 0o600)}))
        program, python = wanted.command, self._python()
        code = _sha256(f"{program.code} {python} {sys.version_info[:2]}")
        if remembered.get("code") == code and not self._differing(remembered["files"]):
            return plan
        for path in MODES:
            self._check_ours(path)
        texts = program.build(python)
        missing = {_top_missing(path, self._host.filesystem.mode) for path in texts} - {""}
        directories = sorted(missing | set(remembered.get("directories", [])))
        digests = {path: _sha256(text) for path, text in texts.items()}
        return plan._replace(
            files=dict(plan.files, **{path: (text, MODES[path]) for path, text in texts.items()}),
            # As long as the change is pending, it is what ends it.
            early=(COMMAND,),
            before=self._before(wanted, directories),
            remembered=dict(
                plan.remembered, **{_REMEMBERED: {"code": code, "files": digests, "directories": directories}}
            ),
        )

    def _python(self) -> str:
        """Return the Python that is there as long as the distribution is, also after an upgrade of it."""
        found = [path for path in PYTHONS if self._host.filesystem.mode(path) is not None]
        return (found + [sys.executable or PYTHONS[0]])[0]

    def _differing(self, digests: Dict[str, str]) -> List[str]:
        filesystem = self._host.filesystem
        return [
            path
            for path, digest in sorted(digests.items())
            if filesystem.digest(path) != digest or filesystem.mode(path) != MODES.get(path)
        ]

    def _is_ours(self, path: str) -> bool:
        return self._host.filesystem.mode(path) is not None and MARK in self._host.filesystem.read(path)[:400]

    def _check_ours(self, path: str) -> None:
        if self._host.filesystem.mode(path) is not None and not self._is_ours(path):
            raise HostError(
                f"{path} is there and is not this collection's, which would put its own command there. Nothing was changed. Move "
                "it away, then run this again."
            )

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:  # noqa: ARG002
        return []

    def readable(self, path: str, text: str) -> str:
        if path == OPTIONS:
            return "# The options of this change.\n" if text else ""
        if path.startswith(UNITS):
            return text
        return f"# {MARK}; SHA-256 {_sha256(text)[:16]}\n" if text else ""

    # Changing

    def load(self, plan: PartPlan) -> Loaded:  # noqa: ARG002
        return Loaded({}, {})

    def keep(self, before: Dict[str, Any]) -> None:
        self._tidy(before)
        if "timer" in before:
            switch(self._host, before["timer"], on=bool(before["timer"]["now"]))

    def _tidy(self, before: Dict[str, Any]) -> None:
        """Remove the directories that were made for its files, where nothing is in them."""
        for path in MODES if before.get("directories") else ():
            folder = os.path.dirname(path)
            while any(folder == made or folder.startswith(made + "/") for made in before["directories"]):
                self._host.filesystem.remove_if_empty(folder)
                folder = os.path.dirname(folder)

    def undo_with_files(self, before: Dict[str, Any]) -> None:
        self._tidy(before)
        if "timer" in before and before["timer"]["ran"] != self._host.systemd.is_wanted(METRICS_TIMER):
            switch(self._host, before["timer"], on=before["timer"]["ran"])

    # Looking

    def inspect(self, report: Report) -> Report:
        state = json.loads(self._host.filesystem.read(STATE_FILE) or "{}")
        digests = state.get(_REMEMBERED, {}).get("files", {})
        found = [f"edited or removed by hand: {path}" for path in self._differing(digests)]
        return report._replace(drift=report.drift + found)


def kept_options(host: Any) -> Dict[str, Any]:
    """Return those options of the change in force that describe the host, empty where they are not kept; steps are in there.

    :param host: a Host.
    """
    kept: Dict[str, Any] = json.loads(host.filesystem.read(OPTIONS) or "{}")
    return dict(DEFAULTS, **kept) if kept else {}


def check_no_panic(state: Dict[str, Any]) -> None:
    """Refuse a change while the host is in panic.

    :param state: what is remembered of earlier changes.
    :raises HostError: if it is.
    """
    if state.get(PANIC):
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(state[PANIC]["since"]))
        raise HostError(
            f"this host is in panic since {since}: all doors and allowed ports are closed, except to trusted sources. Nothing was "
            "changed. To open them again, run 'portknock resume' on the host; then run this again."
        )


def _panic(wanted: Wanted) -> Dict[str, Dict[str, Any]]:
    """Return what is to be remembered of panic, where that changes."""
    if wanted.spec.panic == bool(wanted.state.get(PANIC)):
        return {}
    return {PANIC: {"since": int(time.time())} if wanted.spec.panic else {}}


def _top_missing(path: str, mode: Callable[[str], Any]) -> str:
    """Return the topmost directory that must be made for a file, '' for none."""
    folder, missing = os.path.dirname(path), ""
    while mode(folder) is None and folder != "/":
        folder, missing = os.path.dirname(folder), folder
    return missing


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


__all__ = ("MARK", "MODES", "PANIC", "HostCommand", "Program", "check_no_panic", "kept_options")
