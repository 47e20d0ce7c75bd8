# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words and options of one rule's text. Pure."""

from typing import Iterator, List, Tuple

_LONG = {
    "--protocol": "-p", "--proto": "-p", "--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d",
    "--in-interface": "-i", "--out-interface": "-o", "--jump": "-j", "--goto": "-g", "--match": "-m",
    "--fragment": "-f", "--destination-port": "--dport", "--destination-ports": "--dports",
    "--source-port": "--sport", "--source-ports": "--sports", "--source-country": "--src-cc",
}  # fmt: skip


def split_words(text: str) -> List[str]:
    """Split a rule into words as iptables-restore does: blanks part them, double quotes hold them together."""
    if '"' not in text:
        return text.split()
    words: List[str] = []
    word: List[str] = []
    quoted = begun = escaped = False
    for char in text:
        if escaped:
            word.append(char)
            escaped = False
        elif char == "\\" and quoted:
            escaped = True
        elif char == '"':
            quoted, begun = not quoted, True
        elif char.isspace() and not quoted:
            if word or begun:
                words.append("".join(word))
            word, begun = [], False
        else:
            word.append(char)
    return words + ["".join(word)] if word or begun else words


def options(text: str) -> Iterator[Tuple[str, List[str], bool]]:
    """Yield (option, values, negated) for a rule's text, long spellings made short."""
    words = split_words(text)
    index, negated = 0, False
    while index < len(words):
        word = words[index]
        index += 1
        if word == "!":
            negated = True
            continue
        values = []
        while index < len(words) and words[index] != "!" and not _is_option(words[index]):
            values.append(words[index])
            index += 1
        yield _LONG.get(word, word), values, negated
        negated = False


def _is_option(word: str) -> bool:
    return word[:1] == "-" and len(word) > 1 and not word[1].isdigit()


__all__ = (
    "options",
    "split_words",
)
