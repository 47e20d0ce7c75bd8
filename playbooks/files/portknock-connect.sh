#!/usr/bin/env bash
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What ssh calls to connect to a host behind a door, where there is no python3: bash portknock-connect.sh NAME HOST PORT
# Knocks, connects, knocks again if that was not let in, and then copies between ssh and the connection. The steps are
# in the file `knocks` beside this one, a line for each host: NAME ENGINE PAUSE HOST_TO_KNOCK_AT_OR_- STEP... where the
# engine is what recognises the knock.
# For bash 3.2 and later, with what Linux and macOS both have.

set -u

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) || exit 1
TRIES=5
# Tenths of a second for an address to answer, and for the server to say something. Of several addresses each has ten in the
# first try, and ten more in each that follows: one that never answers must not take the time that the door is open.
CONNECT_PATIENCE=30
PATIENCE=60
# What an engine needs, as in ENGINES of _knock.py: seconds after the last step, and whether it keeps broken knocks.
SETTLE=0
KEEPS_BROKEN_KNOCKS=

complain() {
    printf 'portknock: %s\n' "$1" >&2
    exit 1
}

read_knock() {
    local found rest
    while read -r found ENGINE PAUSE KNOCK_HOST rest; do
        [[ $found == "$NAME" ]] || continue
        read -r -a STEPS <<<"$rest"
        [[ $KNOCK_HOST != - ]] || KNOCK_HOST=$HOST
        case $ENGINE in
            knockd) SETTLE=0.1 KEEPS_BROKEN_KNOCKS=yes ;;
        esac
        return
    done <"$HERE/knocks"
    complain "$NAME is not in $HERE/knocks. Run the playbook sesame.portknock.client_config again."
}

# One address a line; a name where it cannot be looked up here; bash then does it when it connects.
addresses_of() {
    local address kind rest found=""
    if command -v getent >/dev/null; then
        while read -r address kind rest; do
            [[ $kind == STREAM ]] && echo "$address" && found=yes
        done < <(getent ahosts "$1")
    fi
    [[ -n $found ]] || echo "$1"
}

# Steps of two ssh at once to the same host would mix. A lock that is never released is ignored after three seconds.
lock() {
    local turn
    for ((turn = 0; turn < 30; turn++)); do
        mkdir "$HERE/lock-$NAME" 2>/dev/null && return
        sleep 0.1
    done
}

unlock() { rmdir "$HERE/lock-$NAME" 2>/dev/null; }

# The steps of the first try, and of each further one: some engines keep what arrived of a knock whose end got lost, and the
# last step, sent before the first, completes or breaks it. Without that the next knock fails for certain. Every fourth
# further one is plain, because a door may have a close knock that the others would begin each time.
steps_of_try() {
    local count=${#STEPS[@]}
    [[ $((($1 - 1) % 4)) == 0 || -z $KEEPS_BROKEN_KNOCKS || $count == 1 ]] || echo "${STEPS[count - 1]}"
    printf '%s\n' "${STEPS[@]}"
}

# TRY ADDRESS...: sends each step to all of them.
send_steps() {
    local step address sent=() try=$1
    shift
    for step in $(steps_of_try "$try"); do
        sent=()
        for address; do
            if [[ $step == */udp ]]; then
                printf '\0' >"/dev/udp/$address/${step%/*}"
            else
                # A connect to a port that drops hangs, and would send its SYN again after a second: it is ended before.
                (exec 3<>"/dev/tcp/$address/${step%/*}") &
                sent+=($!)
            fi
        done
        sleep "$PAUSE"
        ((${#sent[@]} == 0)) || kill "${sent[@]}"
    done
}

# Such an engine has one list of attempts for all addresses, and forgets all of them when the first one ends: one after the other.
knock() {
    local address
    lock
    if [[ -n $KEEPS_BROKEN_KNOCKS ]]; then
        for address in $KNOCK_AT; do
            send_steps "$1" "$address"
        done
        sleep "$SETTLE"
    else
        # shellcheck disable=SC2086 # a list of addresses
        send_steps "$1" $KNOCK_AT
    fi
    unlock
} 2>/dev/null

# Connects, waits for the server's first line, reports it to the shell above, and copies until one side ends.
attempt() {
    local line reader
    exec 3<>"/dev/tcp/$1/$PORT" || exit 1
    kill -USR2 $$
    IFS= read -r -u 3 line || exit 1
    kill -USR1 $$
    printf '%s\n' "$line"
    cat <&3 &
    reader=$!
    {
        cat <&5 >&3
        kill "$reader"
    } &
    exec 3>&- 5<&-
    wait "$reader"
} 2>/dev/null

# ADDRESS TENTHS: returns only if it did not get in.
connect_to() {
    local turn child tenths=$2
    CONNECTED=""
    attempt "$1" <&5 &
    child=$!
    for ((turn = 0; turn < tenths; turn++)); do
        [[ -z $CONNECTED ]] || tenths=$PATIENCE
        if [[ -n $IN ]]; then
            wait "$child"
            exit
        fi
        kill -0 "$child" 2>/dev/null || break
        sleep 0.1
    done
    # It may have got in with the last of its time.
    kill "$child" 2>/dev/null && REASON="timed out"
    wait "$child" 2>/dev/null
    [[ -z $IN ]] || exit 1
}

main() {
    local try address addresses tenths
    (($# == 3)) || complain "usage: portknock-connect.sh NAME HOST PORT"
    NAME=$1 HOST=$2 PORT=$3 IN=""
    read_knock
    KNOCK_AT=$(addresses_of "$KNOCK_HOST")
    trap 'IN=yes' USR1
    trap 'CONNECTED=yes' USR2
    exec 5<&0
    for ((try = 1; try <= TRIES; try++)); do
        knock "$try"
        REASON="refused or not reached"
        addresses=$(addresses_of "$HOST")
        tenths=$CONNECT_PATIENCE
        [[ $addresses != *$'\n'* ]] || tenths=$((try < 3 ? try * 10 : CONNECT_PATIENCE))
        for address in $addresses; do
            connect_to "$address" "$tenths"
        done
        sleep "0.$try"
    done
    complain "port $PORT of $HOST did not open with $TRIES knocks: $REASON. Has the knock changed? Then run the \
playbook sesame.portknock.client_config again."
}

main "$@"
