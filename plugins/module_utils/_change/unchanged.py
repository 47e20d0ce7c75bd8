# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that meets the same options, the same code and the same host as the one before it, which had nothing to do.

Planning computes from the options and from what it reads through a Host, and from nothing else. So a run that finds nothing to
do writes down a digest of each thing that it has read; the next one reads the same things again, and where nothing differs, the
result is the same. Where it costs less, it reads a mark first, which is the same only where the thing is. That spares it the
planner, which Python compiles anew each time from a module's zip file, and which takes longer than all that is read. What is
written down lies in /run: the first run after a boot plans.
"""

import hashlib
import json
import re
import zipfile
from typing import Any, Callable, Dict, List, Optional, Set

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import Host
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UNCHANGED

_COUNTED = re.compile(r"^#.*\n|\[\d+:\d+\]", re.M)
"""What differs in each save of a ruleset: comments with the time, and counters."""
_OURS = "ansible_collections/sesame/portknock/"
_GENERATION = ["nftables", "generation", []]
_NETWORK = (("sockets", "listening"), ("protocols", "in_use"), ("kernel", "local_network"))
_UNITS: Dict[str, Callable[[List[Any]], List[str]]] = {
    "runs": lambda _words: [],
    "states": lambda names: [f"{name}.service" for name in names],
    "in_use": lambda words: [f"{name}.service" for name in words[0]],
    "is_wanted": lambda units: units,
    "is_ready": lambda units: units,
}
"""Methods that ask about units, and which units."""
_OF_ONE_RUN = ("guard_id", "guard_owner")
"""Options that name a run."""


class Recorder:
    """Stands between the planner and a Host, and notes what is read."""

    def __init__(self, host: Host) -> None:
        """Take the Host."""
        self.reads: List[List[Any]] = []
        """[part of the Host, method, arguments, digest of what it returned, number of the mark that stands for it or None], each once."""
        self.marks: List[List[Any]] = []
        """[part of the Host, method, arguments, digest]."""
        self._seen: Set[str] = set()
        self._numbers: Dict[str, Optional[int]] = {}
        self._real = host
        parts: List[Any] = [_Part(name, getattr(host, name), self.read) for name in Host._fields]
        self.host = Host(*parts)
        """The Host for the planner."""

    def read(self, part: str, method: str, words: List[Any]) -> Any:
        """Return what a method of the Host returns, and note it, and the mark that stands for it.

        The mark is read first: what changes between the two is a difference for the next run.
        """
        key = json.dumps([part, method, words])
        if key in self._seen:
            return _called(self._real, [part, method, words])
        self._seen.add(key)
        number = self._number_of(_mark_of(part, method, words))
        value = _called(self._real, [part, method, words])
        self.reads.append([part, method, words, _digest_of(method, value), number])
        return value

    def _number_of(self, mark: List[Any]) -> Optional[int]:
        """Return the number of a mark, read when it is first asked for; None where there is none, or where it cannot be read."""
        key = json.dumps(mark)
        if mark and key not in self._numbers:
            try:
                self.marks.append([*mark, _digest_of(mark[1], _called(self._real, mark))])
                self._numbers[key] = len(self.marks) - 1
            except HostError:
                self._numbers[key] = None
        return self._numbers.get(key)


class _Part:
    """A part of a Host whose methods are noted."""

    def __init__(self, name: str, part: Any, read: Callable[[str, str, List[Any]], Any]) -> None:
        self._name, self._part, self._read = name, part, read

    def __getattr__(self, method: str) -> Callable[..., Any]:
        # A name that the part does not have is refused here, and not when it is called.
        getattr(self._part, method)
        return lambda *words: self._read(self._name, method, list(words))


def _called(host: Host, read: List[Any]) -> Any:
    """Return what a method of a part of the host returns."""
    part, method, words = read
    return getattr(getattr(host, part), method)(*words)


def _mark_of(part: str, method: str, words: List[Any]) -> List[Any]:
    """Return another read that is the same only where this one is the same too, and takes a fraction of its time, or []."""
    if (part, method) in _NETWORK:
        return ["marks", "network", []]
    if part == "sockets" and method in ("of_tunnel", "carrier_of"):
        return ["marks", "interface", words]
    if part == "systemd" and method in _UNITS:
        return ["marks", "units", [_UNITS[method](words)]]
    if (part, method) == ("filesystem", "digest"):
        return ["filesystem", "identity", words]
    if (part, method) in (("nftables", "tables"), ("nftables", "rules"), ("nftables", "chains")):
        return _GENERATION
    return _mark_of_command(words[0]) if (part, method) == ("command", "run") else []


def _mark_of_command(command: List[str]) -> List[Any]:
    if command[1:] == ["-V"]:
        return ["filesystem", "identity", command[:1]]
    if command[0].endswith("-nft-save") or (command[0].endswith("/nft") and "list" in command):
        return _GENERATION
    return []


def known_result(host: Host, options: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the result of the run before, if this one would have the same, else None.

    :param options: the module's options.
    """
    try:
        noted = json.loads(host.filesystem.read(UNCHANGED) or "{}")
        if noted.get("asked") != _asked(options) or not noted["asked"]:
            return None
        marks = [_as_now(host, mark) for mark in noted["marks"]]
        for *read, digest, number in noted["reads"]:
            if number is not None and marks[number][-1] and marks[number] == noted["marks"][number]:
                continue
            if _digest_of(read[1], _called(host, read)) != digest:
                return None
        if marks != noted["marks"]:
            host.filesystem.replace_files({UNCHANGED: (json.dumps(dict(noted, marks=marks)), 0o600)})
    except (AttributeError, HostError, IndexError, KeyError, TypeError, ValueError):
        # Whatever it is, planning will tell.
        return None
    return noted["result"]


def _as_now(host: Host, mark: List[Any]) -> List[Any]:
    """Return a mark as it is now, with an empty digest where it cannot be read."""
    *read, _digest = mark
    try:
        return [*read, _digest_of(read[1], _called(host, read))]
    except HostError:
        return [*read, ""]


def remember(host: Host, options: Dict[str, Any], recorder: Recorder, result: Dict[str, Any]) -> None:
    """Write down that a run had nothing to do, and what its result was; no step is in a result.

    :raises HostError: if that cannot be written.
    """
    asked = _asked(options)
    if asked:
        text = json.dumps(dict(asked=asked, marks=recorder.marks, reads=recorder.reads, result=result))
        host.filesystem.replace_files({UNCHANGED: (text, 0o600)})


def _asked(options: Dict[str, Any]) -> str:
    """Return a digest of the options and of this code, '' where the code is not one zip file."""
    code = code_of_module()
    wanted = {name: value for name, value in options.items() if name not in _OF_ONE_RUN}
    return _sha256(json.dumps([code, wanted], sort_keys=True)) if code else ""


def digest_of_code() -> str:
    """Return what tells this code from another version of it, '' where the code is not one zip file."""
    code = code_of_module()
    return _sha256(json.dumps(code)) if code else ""


def code_of_module() -> List[Any]:
    """Return what tells this code from other code: names and checksums of our files in a module's zip file.

    Ansible puts files of its own into it, which differ each time.
    """
    path = getattr(globals().get("__loader__"), "archive", None)
    if not path:
        return []
    with zipfile.ZipFile(path) as archive:
        return sorted([info.filename, info.CRC] for info in archive.infolist() if _OURS in info.filename)


def _digest_of(method: str, value: Any) -> str:
    if method == "ssh_connection" and value:
        # The client's port differs from connection to connection, and no decision depends on it.
        value = value[:1] + value[2:]
    elif method == "run":
        value = (value[0], _COUNTED.sub("", value[1]), value[2])
    return _sha256(repr(value))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


__all__ = ("Recorder", "code_of_module", "digest_of_code", "known_result", "remember")
