# Plays a host: the sandbox's own namespace, with a bridge br0; a remote machine `rc` behind ext0; containers `c1` and `c2`.
# $1: bridge-nf-call-iptables. The server in c1 says at tcp 80, 7005 and udp 53 whom it sees.
set -e
ip netns add rc; ip netns add c1; ip netns add c2
for n in rc c1 c2; do ip -n $n link set lo up; done
ip link add ext0 type veth peer name eth0 netns rc
ip addr add 203.0.113.1/24 dev ext0; ip addr add fd03::1/64 dev ext0 nodad; ip link set ext0 up
ip -n rc addr add 203.0.113.2/24 dev eth0; ip -n rc addr add fd03::2/64 dev eth0 nodad; ip -n rc link set eth0 up
ip -n rc route add default via 203.0.113.1; ip -n rc -6 route add default via fd03::1
ip link add br0 type bridge; ip addr add 10.88.0.1/16 dev br0; ip addr add fd88::1/64 dev br0 nodad; ip link set br0 up
for i in 1 2; do
  ip link add v$i type veth peer name eth0 netns c$i; ip link set v$i master br0 up; bridge link set dev v$i hairpin on
  ip -n c$i addr add 10.88.0.1$i/16 dev eth0; ip -n c$i addr add fd88::1$i/64 dev eth0 nodad; ip -n c$i link set eth0 up
  ip -n c$i route add default via 10.88.0.1; ip -n c$i -6 route add default via fd88::1
done
for f in /proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/bridge/bridge-nf-call-ip6tables; do
  [ ! -e $f ] || echo "$1" > $f
done
record() { echo '{"id":"'$1'","network":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/'$2'"}],"ips":[{"address":"10.88.0.1'${2#c}'/16"},{"address":"fd88::1'${2#c}'/64"}]}}'; }
get() { python3 client.py "$@"; }
in_ns() { ns=$1; shift; ip netns exec $ns python3 client.py "$@"; }
down() {
  kill $server; wait $server 2>/dev/null || :
  # Not left to the end of their namespaces, for which a socket that TCP has not closed yet may wait for minutes.
  for link in ext0 v1 v2 br0; do ip link del $link 2>/dev/null || :; done
  for n in rc c1 c2; do ip netns del $n; done
}
ip netns exec c1 python3 server.py tcp:80 tcp:7005 udp:53 > server.out & server=$!
until grep -q ready server.out; do :; done
set +e
