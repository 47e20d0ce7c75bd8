# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Malformed wishes that hold a step: the shapes that people's mistakes have. tests/wire runs them, too."""

from typing import Any, Dict

STEP = 61234
DOOR: Dict[str, Any] = {"name": "ssh", "knock": [40001, 30002], "opens": [22]}

SHAPES: Dict[str, Dict[str, Any]] = {
    "doors as a number": {"doors": STEP},
    "doors as a text": {"doors": f"ssh {STEP}"},
    "doors as a dictionary": {"doors": {"ssh": {"knock": [STEP], "opens": [22]}}},
    "doors as a door": {"doors": {"name": "ssh", "knock": [STEP], "opens": [22]}},
    "a door as a list": {"doors": [["ssh", STEP]]},
    "a door as a number": {"doors": [STEP]},
    "a door as a text": {"doors": [f"name=ssh knock={STEP} opens=22"]},
    "a door as JSON": {"doors": [f'{{"name": "ssh", "knock": [{STEP}], "opens": 22}}']},
    "lists in lists": {"doors": [[[["ssh", [STEP]]]]]},
    "a key that is a port": {"doors": [{"ssh": 22, STEP: "tcp"}]},
    "a key that is a port as text": {"doors": [dict(DOOR, **{str(STEP): "tcp"})]},
    "steps in a key of another name": {"doors": [{"name": "ssh", "knocks": [STEP, 7000], "opens": [22]}]},
    "steps as a dictionary": {"doors": [dict(DOOR, knock={"port": STEP, "protocol": "tcp"})]},
    "a step as a dictionary": {"doors": [dict(DOOR, knock=[{"port": STEP}, {STEP: "udp"}])]},
    "a step as a list": {"doors": [dict(DOOR, knock=[[STEP, "udp"]])]},
    "a step as a fraction": {"doors": [dict(DOOR, knock=[STEP + 0.5])]},
    "a step of an unknown protocol": {"doors": [dict(DOOR, knock=[f"{STEP}/sctp"])]},
    "steps in one text": {"doors": [dict(DOOR, knock=f"{STEP} 7000")]},
    "window holds steps": {"doors": [dict(DOOR, window=[STEP, 7000])]},
    "window holds a text": {"doors": [dict(DOOR, window=f"{STEP}/udp")]},
    "close holds a dictionary": {"doors": [dict(DOOR, close={"knock": [STEP]})]},
    "opens holds steps in one text": {"doors": [dict(DOOR, opens=f"22 {STEP}")]},
    "opens holds lists": {"doors": [dict(DOOR, opens=[[22, STEP]])]},
    "opens is what the knock should be": {"doors": [{"name": "ssh", "opens": [STEP, 7000]}]},
    "once holds a step": {"doors": [dict(DOOR, once=STEP)]},
    "the name is a step": {"doors": [dict(DOOR, name=STEP)]},
    "sources hold steps": {"doors": [dict(DOOR, sources=[STEP])]},
    "allow is a step": {"doors": [DOOR], "allow": STEP},
    "allow holds a step": {"doors": [DOOR], "allow": [STEP]},
    "an allowed port is a knock": {"doors": [DOOR], "allow": [{"port": [STEP, 7000]}]},
    "the protocol of an allowed port is a step": {"doors": [DOOR], "allow": [{"port": 443, "protocol": STEP}]},
    "an allowed port of another key": {"doors": [DOOR], "allow": [{"port": 443, "knock": [STEP]}]},
}
"""What the mistake is to the options that have it."""


def shaped(name: str) -> Dict[str, Any]:
    """Return the options of a shape."""
    return dict(SHAPES[name])


def holds_step(text: str) -> bool:
    """Return whether a text shows the step anywhere, in the middle of a word as well."""
    return str(STEP) in text
