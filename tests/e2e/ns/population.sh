# Processes and files that hold namespaces of every type, in one process and one mount namespace. `compare` runs two
# programs and says what differs; a namespace without a process, which an older lsns does not see, is passed over.
export LC_ALL=C.UTF-8
mkdir -p /run/netns
held=
hold() { "$@" <&- & held="$held $!"; }
hold unshare -u sleep 300; hold unshare -i sleep 301; hold unshare -n sleep 302; hold unshare -m sleep 303
hold unshare -C sleep 304
hold unshare -T --boottime 1000 --fork --kill-child sleep 305
hold unshare --user --map-root-user --pid --fork --kill-child --mount-proc sleep 306
hold unshare --user --map-root-user unshare --user --map-root-user unshare -n sleep 307
hold setpriv --reuid 65534 --clear-groups unshare -Uun sleep 308
hold unshare -u bash -c 'exec -a "we\"ird	\\ ünï" sleep 309'
hold unshare -u bash -c "exec -a \$'new\nline \x01ctl' sleep 310"
ip netns add named; ip netns add held
touch also; mount --bind /run/netns/held also
hold nsenter --net=/run/netns/held sleep 311
# Whatever its command line says, each of them is a `sleep` at last.
until [ "$(pgrep -cx sleep)" = 12 ]; do :; done
alone=$(stat -c %i /run/netns/named)
compare() {
    lsns "$@" >want 2>&1; lsns_code=$?
    "$OURS" "$@" >got 2>&1; code=$?
    sed -i "/$alone/d" got
    [ $code = $lsns_code ] && cmp -s want got && return
    echo "differs: $* ($lsns_code, $code)"; diff want got | head -20
}
down() {
    umount also; ip netns del named; ip netns del held
    # A program that waits for its child ignores other signals.
    kill -KILL $held; wait 2>/dev/null
    while pgrep -x sleep >/dev/null; do :; done
}
