# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of a change share."""

import pytest
from story import MINE, NAMES, Story


@pytest.fixture(params=NAMES)
def story(request):
    return Story(request.param, v4=MINE)
