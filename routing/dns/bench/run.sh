#!/bin/sh
# Compares landfall's DNS with gdnsd, both answering a steered name on one core, by dnsperf from another.
# Needs dnsperf, gdnsd and ip (Debian: dnsperf gdnsd iproute2), root for a network namespace of its own, and two cores.
#   routing/dns/bench/run.sh [SECONDS]
set -eu
seconds=${1:-10}
root=$(cd "$(dirname "$0")/../../.." && pwd)
dir=$(mktemp -d)
ns=landfall-bench-$$
pids=
stop() {
	for p in $pids; do kill "$p" 2>/dev/null || true; done
	for p in $pids; do wait "$p" 2>/dev/null || true; done
	ip netns del "$ns" 2>/dev/null || true
	rm -rf "$dir"
}
trap stop EXIT INT TERM
ip netns add "$ns"
ip netns exec "$ns" ip link set lo up
(cd "$root" && go build -o "$dir/landfall" ./cmd/landfall)

cat >"$dir/fleet.yaml" <<YAML
regions: {eu: {location: [53.35, -6.26]}, us: {location: [38.95, -77.45]}}
listen: {dns: [":5301"], admin: "127.0.0.1:9951"}
dns: {rate: {responses: 0}, zones: {bench.test: {}}}
services: {web: {hosts: [www.bench.test], pools: {any: {origins: ["http://127.0.0.1:3000"]}}}}
YAML
echo "www.bench.test A" >"$dir/queries"

# gdnsd: the simplest of its steered answers, a multifo resource whose addresses are believed up.
mkdir -p "$dir/gdnsd/zones" "$dir/gdnsd/run" "$dir/gdnsd/state"
cat >"$dir/gdnsd/config" <<CONF
options => { listen => [127.0.0.1:5302], zones_default_ttl => 20, run_dir => $dir/gdnsd/run, state_dir => $dir/gdnsd/state, udp_threads => 1, tcp_threads => 1 }
plugins => { multifo => { web => { service_types => up, a => 192.0.2.1, b => 192.0.2.2 } } }
CONF
cat >"$dir/gdnsd/zones/bench.test" <<ZONE
@ SOA ns1 hostmaster (1 7200 900 1209600 20)
@ NS ns1
ns1 A 127.0.0.1
www DYNA multifo!web
ZONE

GOMAXPROCS=1 ip netns exec "$ns" taskset -c 0 "$dir/landfall" run --config "$dir/fleet.yaml" --node bench --region eu --bind 127.0.0.1 --advertise 192.0.2.1 >"$dir/landfall.log" 2>&1 &
pids="$pids $!"
if command -v gdnsd >/dev/null; then
	ip netns exec "$ns" taskset -c 0 gdnsd -c "$dir/gdnsd" -D start >"$dir/gdnsd.log" 2>&1 &
	pids="$pids $!"
fi

# client subnet option (8): family 1, source /24, 198.51.100
measure() {
	ip netns exec "$ns" taskset -c 1 dnsperf -s 127.0.0.1 -p "$2" -d "$dir/queries" -l "$seconds" -c 8 -q 200 -e -E 8:00011800c63364 2>/dev/null |
		awk -v who="$1" '/Queries completed/ {done = $3} /Queries lost/ {lost = $3} /Queries per second/ {rate = $4} /Average Latency/ {lat = $4}
			END {printf "%-10s %9.0f queries/s  %d answered, %d lost, latency %.2f ms\n", who, rate, done, lost, lat * 1000}'
}
for port in 5301 5302; do
	tries=0
	until ip netns exec "$ns" dig +time=1 +tries=1 @127.0.0.1 -p "$port" www.bench.test A >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 10 ] || break
	done
done
measure landfall 5301
if command -v gdnsd >/dev/null; then measure gdnsd 5302; fi
