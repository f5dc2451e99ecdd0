#!/bin/sh
# test_replay.sh SIM: a seed gives the same run every time, and a run that fails is shrunk to the
# faults that it takes: with a planted failure, of two, one cuts the network and one is the crash.
sim=$1
failed=0

fail() {
    echo "FAIL $*"
    failed=1
}

for arguments in '--seed 3' '--seed 14' '--core --seed 3' '--core --seed 14'; do
    first=$("$sim" $arguments -v | cksum)
    again=$("$sim" $arguments -v | cksum)
    [ "$first" = "$again" ] || fail "$arguments -v differs from itself"
done
[ "$("$sim" --seed 3 -v | cksum)" != "$("$sim" --seed 4 -v | cksum)" ] || fail "all seeds are alike"

for mode in '' '--core'; do
    seed=1
    while [ $seed -lt 100 ] && "$sim" $mode --planted --seed $seed >/dev/null 2>&1; do
        seed=$((seed + 1))
    done
    "$sim" $mode --planted --seed $seed >/dev/null 2>&1
    [ $? -eq 1 ] || fail "sim $mode: the planted failure does not give status 1"
    shrunk=$("$sim" $mode --planted --seed $seed --shrink)
    echo "$shrunk"
    case $shrunk in
    *"fails with 2 of "*) ;;
    *) fail "sim $mode --seed $seed is not shrunk to two faults" ;;
    esac
    only=$(echo "$shrunk" | sed -n 's/^replay: sim.* --only \([0-9,]*\) .*/\1/p')
    "$sim" $mode --planted --seed $seed --only "$only" 2>&1 | grep -q 'as planted' ||
        fail "sim $mode --seed $seed --only $only does not fail as it did"
    "$sim" $mode --planted --seed $seed --only "${only%,*}" >/dev/null 2>&1 ||
        fail "sim $mode --seed $seed --only ${only%,*} fails, too"
done

# What it says to replay a failure is all that it takes.
for mode in '' '--core' '--duel' '--core --duel'; do
    seed=1
    while [ $seed -lt 100 ] && "$sim" $mode --planted --seed $seed >/dev/null 2>&1; do
        seed=$((seed + 1))
    done
    failure=$("$sim" $mode --planted --seed $seed 2>&1 >/dev/null)
    arguments=$(echo "$failure" | sed -n 's/^replay: sim\(.*\) -v$/\1/p')
    [ -n "$arguments" ] || fail "sim $mode --planted: nothing fails"
    [ "$("$sim" $arguments 2>&1 >/dev/null)" = "$failure" ] ||
        fail "sim$arguments does not fail as it did with $mode"
done
exit $failed
