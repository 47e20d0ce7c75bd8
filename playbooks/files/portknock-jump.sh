#!/bin/sh
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What ssh calls to connect to a host behind a door and behind a jump host: sh portknock-jump.sh NAME HOST PORT ARGUMENT...
# The arguments are ssh's own and lead to the jump host. It has the jump host knock, with what is in the file `jumps/NAME`
# beside this one, and then connects through it as ProxyJump does.

set -u

TRIES=3
MARK='#-- bash'
SAID='portknock: '
# The programs come in over standard input, one behind the other, so that no process list shows a step.
REMOTE="exec sh -c '"'if python3 -IS -c "import sys; sys.exit(sys.version_info < (3, 6))" </dev/null >/dev/null 2>&1; '
REMOTE=$REMOTE'then sed "/^'$MARK'/q" | python3 -IS - 2>/dev/null; '
REMOTE=$REMOTE'elif command -v bash >/dev/null 2>&1; then sed "1,/^'$MARK'/d" | bash 2>/dev/null; '
REMOTE=$REMOTE'else echo "'$SAID'it has neither python3 nor bash"; fi'"'"

complain() {
    printf 'portknock: %s\n' "$1" >&2
    exit 255
}

[ $# -ge 4 ] || complain 'usage: portknock-jump.sh NAME HOST PORT ARGUMENT_OF_SSH...'
name=$1 host=$2 port=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd -P) || exit 255
knock=$here/jumps/$name
[ -r "$knock" ] || complain "$name is not in $here/jumps. Run the playbook sesame.portknock.client_config again."
case $host in
    *:*) target=[$host]:$port ;;
    *) target=$host:$port ;;
esac
errors=$(mktemp) || exit 255
trap 'rm -f "$errors"' EXIT
trap 'exit 255' HUP INT TERM

# What the jump host's block adds to a login does not matter.
quiet() {
    ssh -o ClearAllForwardings=yes -o ForwardAgent=no -o ForwardX11=no -o RemoteCommand=none -o RequestTTY=no "$@"
}

knock_by_jump_host() {
    said=$(quiet "$@" "$REMOTE" <"$knock" 2>"$errors" | sed -n "s/^$SAID//p" | tail -n 1)
    [ "$said" = sent ] || complain "the jump host did not knock at $host: ${said:-$(tail -n 1 "$errors")}"
}

# ssh reads nothing of what is to be sent before the jump host has connected, so a try that was refused has cost nothing.
connect() {
    knock_by_jump_host "$@"
    # It says why at the level INFO.
    ssh -o LogLevel=INFO -W "$target" "$@" 2>"$errors"
    code=$?
}

refused() { [ "$code" != 0 ] && grep -q 'stdio forwarding' "$errors"; }

try=1
connect "$@"
while refused && ! grep -q prohibited "$errors" && [ "$try" -lt "$TRIES" ]; do
    try=$((try + 1))
    connect "$@"
done
# Why it did not open, by what the jump host's sshd saw; as in MEANINGS of _client/answers.py.
why() {
    case $(cat "$errors") in
        *prohibited*) echo "the jump host does not let ssh connect from it (AllowTcpForwarding, PermitOpen)" ;;
        *"Connection refused"*)
            echo "it is refused: perhaps the host did not accept the knock, perhaps the door is open and nothing listens behind it" ;;
        *"No route to host"*) echo "no host answers at this address: it is down, or the address is not its own" ;;
        *"Network is unreachable"*) echo "the jump host has no route to it" ;;
        *"Name or service not known"* | *"name resolution"*) echo "the jump host finds no address of this name" ;;
        *"timed out"*)
            echo "nothing answers: perhaps the host is down, perhaps a firewall drops the packets, perhaps the host did not accept \
the knock" ;;
        *) echo "the jump host could not connect to it, perhaps because the host did not accept the knock" ;;
    esac
}

if refused; then
    reason=$(why)
    knocks="$try knock"
    [ "$try" = 1 ] || knocks=${knocks}s
    advice=
    case $reason in
        *knock*) advice=' Has the knock changed? Then run the playbook sesame.portknock.client_config again.' ;;
    esac
    complain "no connection to port $port of $host after $knocks by the jump host: $reason.$advice"
fi
[ "$code" = 0 ] || cat "$errors" >&2
exit "$code"
