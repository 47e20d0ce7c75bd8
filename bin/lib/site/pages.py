#!/usr/bin/env python3
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the pages of docs/ that are made from the code: variables, playbooks, troubleshooting.

Run it after a change of the role's variables, of a playbook's header, or of a message that troubleshooting.yml names.
With --check it writes nothing, and fails where a page is not what it would write.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from code_messages import ROOT, whole_message

HEADER = """<!--
Copyright: (c) 2026, sesame.portknock contributors
GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->

<!-- Made by bin/lib/site/pages.py. Changes to this file are lost. -->

"""
_MARKUP = re.compile(r"\b([OVCMPB])\(((?:[^()\\]|\([^()]*\))*)\)")


_CODE = re.compile(r"(?<![\w`])(-e \w+=\w+|--[a-z]+|(?:portknock|ansible)_\w+|~/[\w./]*\w)")
"""What is code in the comment at a playbook's head."""


def in_markdown(text: str) -> str:
    """Return a sentence of an argument spec with Ansible's markup as Markdown."""
    return _MARKUP.sub(lambda found: f"`{_shown(*found.groups())}`", text)


def _shown(kind: str, text: str) -> str:
    """Return what a reader sees of a reference: the option without where it is, the plugin without its kind."""
    if kind == "O":
        return text.rpartition(":")[2].replace("=", ": ")
    return text.partition("#")[0]


def variables() -> str:
    """Return the page of the role's variables."""
    options = _specs()["main"]["options"]
    lines = [
        "# Variables",
        "Of the role, and so of the playbooks `site` and `verify`; those of [playbooks alone](playbooks.md) and of "
        "[clients](clients.md#ansible) are on their pages. `ansible-doc --type role sesame.portknock.portknock` shows the same.",
        "Options that would defeat the purpose are refused before anything is changed, with the option's name and advice: "
        "steps that a linear scan would hit in order, a knock port that is also opened or allowed, a knock that contains "
        "another door's knock, an allowed port that makes a door void, and a ruleset that would refuse the connection it "
        "is written over.",
        "So are wrong values, and variables that begin with `portknock_` and are none of these: the message names the nearest one "
        "that there is. A list may be written as one text with commas. Write no port with a zero in front or a colon in it: in quotes it "
        "is refused, and without them YAML reads `0777` as 511 and `22:22` as 1342.",
        _overview(options),
    ]
    for name, option in options.items():
        lines += [f"## {name}", f"Default: `{json.dumps(option.get('default'))}`", *_description(option)]
        if option.get("options"):
            lines.append(_keys(option["options"]))
    return HEADER + "\n\n".join(lines) + "\n"


def _specs() -> Mapping[str, Any]:
    path = ROOT / "roles" / "portknock" / "meta" / "argument_specs.yml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"])


def _overview(options: Mapping[str, Any]) -> str:
    rows = [f"| [`{name}`](#{name}) | {_first_sentence(option)} |" for name, option in options.items()]
    return "\n".join(["| variable | |", "|---|---|", *rows])


def _first_sentence(option: Mapping[str, Any]) -> str:
    text = in_markdown(option["description"][0])
    return re.split(r"(?<=[a-z0-9`)])\. ", text)[0].rstrip(".")


def _description(option: Mapping[str, Any]) -> list[str]:
    # Why the type is raw matters to nobody who sets a variable.
    shown = [text.split(" C(raw) because", 1)[0] for text in option["description"]]
    return [in_markdown(text) for text in shown]


def _keys(options: Mapping[str, Any]) -> str:
    rows = [f"| `{name}` | {_default(option)} | {' '.join(_description(option))} |" for name, option in options.items()]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _default(option: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "required"
    return f"`{json.dumps(option['default'])}`" if "default" in option else ""


def playbooks() -> str:
    """Return the page of the playbooks: what stands at the head of each file."""
    lines = [
        "# Playbooks",
        "Run one by its name: `ansible-playbook -i hosts.ini -b -J sesame.portknock.site -e portknock_hosts=guarded`. "
        "`-J` asks for the vault's password, `-b` takes root by sudo. A playbook fails where no host matches.",
    ]
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        lines += [f"## sesame.portknock.{path.stem}", head_of(path.read_text(encoding="utf-8"))]
    return HEADER + "\n\n".join(lines) + "\n"


def head_of(text: str) -> str:
    """Return the comment at the head of a playbook, without the licence; its table of variables as a list."""
    blocks = re.findall(r"(?:^#.*\n)+", text.split("\n- ", 1)[0] + "\n", re.M)
    lines = [line[1:].rstrip() for line in blocks[-1].splitlines()]
    parts: list[str] = []
    for line in lines:
        variable = re.match(r" {3}(\w+)  +(.*)$", line)
        if variable:
            parts.append(f"- `{variable[1]}`: {variable[2]}")
        elif line.startswith("    ") and parts and parts[-1].startswith("- "):
            parts[-1] += " " + line.strip()
        elif parts and line.strip() and parts[-1] and not parts[-1].startswith("- "):
            parts[-1] += "\n" + line.strip()
        else:
            parts.append(line.strip())
    return _CODE.sub(r"`\1`", "\n".join(parts).strip())


def troubleshooting() -> str:
    """Return the page of messages, their causes and cures; each message as the code has it.

    :raises ValueError: where the code has no such message.
    """
    page = yaml.safe_load((ROOT / "bin" / "lib" / "site" / "troubleshooting.yml").read_text(encoding="utf-8"))
    lines = ["# Troubleshooting", page["introduction"].strip()]
    for section in page["sections"]:
        lines.append(f"## {section['title']}")
        for entry in section["messages"]:
            lines += [
                "> " + _plain(whole_message(entry["in"], entry["words"])),
                f"**Cause**: {entry['cause'].strip()}",
                f"**Cure**: {entry['cure'].strip()}",
            ]
    return HEADER + "\n\n".join([*lines, page["end"].strip()]) + "\n"


def _plain(text: str) -> str:
    """Return a text in which Markdown sees nothing to do."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", text)


PAGES = {"variables.md": variables, "playbooks.md": playbooks, "troubleshooting.md": troubleshooting}


def main() -> int:
    """Write the pages, or compare them."""
    wrong = []
    for name, make in PAGES.items():
        path, text = ROOT / "docs" / name, make()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(name)
    if wrong:
        print(f"docs/ is not what the code says ({', '.join(wrong)}): run bin/lib/site/pages.py", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
