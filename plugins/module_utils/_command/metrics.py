# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``portknock metrics`` prints: text for Prometheus. Pure, but for writing it to a file."""

import os
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._command.status import check
from ansible_collections.sesame.portknock.plugins.module_utils._engine import ERROR, INFO
from ansible_collections.sesame.portknock.plugins.module_utils._engine import WARNING as WARNING_FINDING
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import METRICS_FILE

Sample = Tuple[Dict[str, str], Any]
"""Labels, and the value."""


def metrics_text(found: Dict[str, Any]) -> str:
    """Return the metrics of what inspect() returned."""
    doors, lists = found["doors"], found["lists"]
    per_door = [(_labels(door, door["name"]), door) for door in doors]
    per_list = [(_labels(each, each["door"]), each) for each in lists]
    findings = [each["severity"] for each in found["findings"]]
    wrong: List[Sample] = [] if found["wrong_knocks"] is None else [({}, found["wrong_knocks"])]
    engine = {"engine": found["engine"], "backend": found.get("backend", "")}
    families: Sequence[Tuple[str, str, str, Iterable[Sample]]] = (
        ("info", "gauge", "The engine that recognises knocks.", [(engine, 1)]),
        ("state", "gauge", "As status --check: 0 well, 1 warning, 2 critical.", [({}, check(found)[0])]),
        ("door_open", "gauge", "Sources that have the door open.", [(one, len(door["open_for"])) for one, door in per_door]),
        (
            "knocks_total", "counter", "Knocks that opened the door since the rules were loaded.",
            [(one, door["knocked"]) for one, door in per_door if "knocked" in door],
        ),
        (
            "let_in_total", "counter", "New connections that the door let in since the rules were loaded.",
            [(one, door["let_in"]) for one, door in per_door],
        ),
        (
            "door_refused_total", "counter", "Packets refused at the door's ports since the rules were loaded; a port of two doors counts "
            "for both.", [(one, door["refused"]) for one, door in per_door if "refused" in door],
        ),
        ("refused_total", "counter", "Packets refused at ports of doors since the rules were loaded.", [({}, found["refused"])]),
        ("wrong_knocks_total", "counter", "Knocks that were reset since the rules were loaded.", wrong),
        ("list_entries", "gauge", "Sources on a list; without a door, those in the middle of a knock.",
         [(one, each["entries"]) for one, each in per_list]),
        ("list_size", "gauge", "How many sources a list takes.", [(one, each["size"]) for one, each in per_list]),
        ("drift", "gauge", "Rules and files that were changed by hand.", [({}, 0 if found["pending"] else len(found["drift"]))]),
        ("pending", "gauge", "Changes that wait to be confirmed.", [({}, int(bool(found["pending"])))]),
        ("panic", "gauge", "Whether everything is closed except to trusted sources.", [({}, int(bool(found["panic"])))]),
        ("findings", "gauge", "Findings of a severity.",
         [({"severity": each}, findings.count(each)) for each in (ERROR, WARNING_FINDING, INFO)]),
    )  # fmt: skip
    return "".join(_family(*family) for family in families)


def _labels(item: Dict[str, Any], door: str) -> Dict[str, str]:
    return {"door": door, "ip_version": item["ip_version"]}


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"portknock_{name}{_shown(labels)} {value}\n" for labels, value in samples]
    return f"# HELP portknock_{name} {text}\n# TYPE portknock_{name} {kind}\n{''.join(lines)}" if lines else ""


def _shown(labels: Dict[str, str]) -> str:
    """Return labels as they are written; none of ours holds a quote or a backslash."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""


def write_metrics(host: Any, directory: str, text: str) -> None:
    """Write metrics so that a reader finds either the ones before or these, whole.

    :raises HostError: if they cannot be written.
    """
    if not os.path.isdir(directory):
        raise HostError(f"{directory} is not a directory, so no metrics were written.")
    host.filesystem.replace_files({f"{directory}/{METRICS_FILE}": (text, 0o644)})


__all__ = ("metrics_text", "write_metrics")
