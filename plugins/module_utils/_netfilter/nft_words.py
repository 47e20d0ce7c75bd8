# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rule that ``nft -j`` lists, in the words of nft. Pure.

For people, to find it again: what is seldom is shortened.
"""

from typing import Any, Callable, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, expressions

_MOST_MEMBERS = 8


def rule_words(rule: Item) -> str:
    """Return a rule as people write it, with its comment.

    :param rule: its fields.
    """
    words = [_part(part) for part in expressions(rule)]
    comment = rule.get("comment")
    return " ".join(filter(None, words)) + (f' comment "{comment}"' if comment else "")


def _part(part: Item) -> str:
    kind, what = next(iter(part.items()))
    if kind in _PARTS and isinstance(what, dict):
        return _PARTS[kind](what)
    return kind if what is None or isinstance(what, dict) else f"{kind} {_value(what)}"


def _match(what: Item) -> str:
    operation = what.get("op")
    sign = "" if operation in ("==", "in") else f"{operation} "
    masked = isinstance(what.get("left"), dict) and "&" in what["left"] and operation == "=="
    return f"{_value(what.get('left'))} {'== ' if masked and '@' not in str(what.get('right')) else sign}{_value(what.get('right'))}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    if not isinstance(value, dict) or len(value) != 1:
        return str(value)
    kind, what = next(iter(value.items()))
    return _VALUES[kind](what) if kind in _VALUES else f"{kind} {_value(what)}"


def _set(what: Any) -> str:
    found = [_value(each) for each in what[:_MOST_MEMBERS]] if isinstance(what, list) else [str(what)]
    return "{ " + ", ".join(found + ["…"] * (isinstance(what, list) and len(what) > _MOST_MEMBERS)) + " }"


def _payload(what: Item) -> str:
    return f"{what.get('protocol', '')} {what.get('field', '')}".strip() or "@payload"


def _elem(what: Item) -> str:
    timeout = f" timeout {what['timeout']}s" if "timeout" in what else ""
    return f"{_value(what.get('val'))}{timeout}"


def _update(what: Item) -> str:
    return f"{what.get('op')} {what.get('set')} {{ {_value(what.get('elem'))} }}"


def _vmap(what: Item) -> str:
    # Of a map it matters where it is; its members would fill a screen.
    data = what.get("data")
    return f"{_value(what.get('key'))} vmap {data if isinstance(data, str) else '{ … }'}"


_VALUES: Dict[str, Callable[[Any], str]] = {
    "payload": _payload,
    "meta": lambda what: (
        str(what.get("key")) if what.get("key") in ("iifname", "oifname", "iif", "oif") else f"meta {what.get('key')}"
    ),
    "ct": lambda what: f"ct {what.get('key')}",
    "prefix": lambda what: f"{what.get('addr')}/{what.get('len')}",
    "range": lambda what: "-".join(map(_value, what)),
    "concat": lambda what: " . ".join(map(_value, what)),
    "set": _set,
    "elem": _elem,
    "&": lambda what: " & ".join(map(_masked, what)),
    "|": lambda what: " | ".join(map(_value, what)),
}


def _masked(value: Any) -> str:
    return (
        f"({_value(value)})" if isinstance(value, list) or (isinstance(value, dict) and "|" in value) else _value(value)
    )


_PARTS: Dict[str, Callable[[Any], str]] = {
    "match": _match,
    "set": _update,
    "vmap": _vmap,
    "counter": lambda what: "",  # noqa: ARG005
    "jump": lambda what: f"jump {what.get('target')}",
    "goto": lambda what: f"goto {what.get('target')}",
    "log": lambda what: "log",  # noqa: ARG005
    "limit": lambda what: f"limit rate {what.get('rate')}/{what.get('per')}",
    "reject": lambda what: "reject",  # noqa: ARG005
    "redirect": lambda what: f"redirect to :{_value(what['port'])}" if "port" in what else "redirect",
    "dnat": lambda what: (
        f"dnat to {_value(what.get('addr', ''))}" + (f":{_value(what['port'])}" if "port" in what else "")
    ),
    "mangle": lambda what: f"{_value(what.get('key'))} set {_value(what.get('value'))}",
}

__all__ = ("rule_words",)
