# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The messages in the code: what a text of the documents quotes must be one of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GAP = "…"
"""Stands for what a message fills in."""


def messages(source: str) -> list[str]:
    """Return the texts of a Python file but its docstrings; what is filled in is GAP."""
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    return [
        re.sub(r"\{\w*\}", GAP, text)
        for node in ast.walk(tree)
        if id(node) not in statements | parts
        for text in _texts(node)
    ]


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def whole_message(path: str, words: str) -> str:
    """Return the one message of a file that has these words.

    :param path: the file, from the root of the collection.
    :raises ValueError: where no message of the file has them, or more than one.
    """
    # Of two that are the same but for their ends, the code has parts that are put together in two ways.
    found = sorted({text for text in messages((ROOT / path).read_text(encoding="utf-8")) if words in text})
    if len(found) != 1:
        raise ValueError(f"{path}: {len(found)} messages have the words {words!r}, and one should")
    return " ".join(found[0].split())
