#!/bin/sh
# Compares landfall's steered DNS answers with gdnsd, Knot's geoip module and PowerDNS's geoip backend: each answers one
# name by the client's place, on one core, one after the other, to dnsperf on another core. Each query comes from another
# client subnet. Servers that are not installed are left out.
# Needs dnsperf and ip, root for a network namespace of its own, and two cores.
# Debian: dnsperf iproute2 gdnsd knot knot-module-geoip pdns-server pdns-backend-geoip.
#   routing/dns/bench/run.sh [SECONDS [ROUNDS]]
set -eu
seconds=${1:-10} rounds=${2:-2}
server_core=0 client_core=1
root=$(cd "$(dirname "$0")/../../.." && pwd)
dir=$(mktemp -d)
chmod 755 "$dir"
ns=landfall-bench-$$
pids=
in_ns="ip netns exec $ns" # no function: in the background that is a shell of its own, and $! isn't the server
# Stops the servers that run: none may take time from the next one.
stop() {
	for p in $pids; do kill "$p" 2>/dev/null || true; done
	for p in $pids; do wait "$p" 2>/dev/null || true; done
	pids=
}
trap 'stop; ip netns del "$ns" 2>/dev/null || true; rm -rf "$dir"' EXIT INT TERM
ip netns add "$ns"
$in_ns ip link set lo up
(cd "$root" && go build -o "$dir/landfall" ./cmd/landfall && go run ./routing/dns/bench -dir "$dir")

# landfall: a fleet of three regions, so that there is something to decide. One node is measured; the others are idle
# beside the client.
mkdir "$dir/fleet"
(cd "$dir/fleet" && "$dir/landfall" fleet init >key 2>/dev/null && for n in eu us ap; do "$dir/landfall" fleet cert "$n" >/dev/null 2>&1; done)
. "$dir/fleet/key"
export LANDFALL_MESH_KEY
if command -v dnssec-keygen >/dev/null; then
	dnssec-keygen -q -K "$dir/fleet" -a ECDSAP256SHA256 -f KSK signed.test >/dev/null
	signed="signed.test: {dnssec: {keys: $dir/fleet}},"
fi
cat >"$dir/fleet/fleet.yaml" <<YAML
regions: {eu: {location: [53.35, -6.26]}, us: {location: [38.95, -77.45]}, ap: {location: [1.35, 103.99]}}
listen: {dns: [":5301"], mesh: ":7946", peer: ":7443"}
mesh: {join: [127.0.1.1, 127.0.1.2, 127.0.1.3], key: "\${LANDFALL_MESH_KEY}", tls: {ca: ca.pem, cert: "\${NODE}.pem", key: "\${NODE}.key"}}
shutdown: {dns_wait: 0s, grace: 1s}
dns: {answers: 1, rate: {responses: 0}, geoip: ../places.mmdb, zones: {${signed:-} bench.test: {}}}
services: {web: {hosts: [www.bench.test, www.signed.test], pools: {any: {origins: ["http://127.0.0.1:3000"]}}}}
YAML
landfall() {
	i=1
	for n in eu us ap; do
		core=$client_core
		[ $n = eu ] && core=$server_core
		GOMAXPROCS=1 $in_ns taskset -c $core "$dir/landfall" run --config "$dir/fleet/fleet.yaml" --node $n --region $n --bind 127.0.1.$i \
			--advertise 192.0.2.$i --admin 127.0.1.$i:9901 >"$dir/landfall-$n.log" 2>&1 &
		pids="$pids $!"
		i=$((i + 1))
	done
}

# gdnsd: its geoip plugin, by the nearest of three datacenters.
mkdir -p "$dir/gdnsd/zones" "$dir/gdnsd/run" "$dir/gdnsd/state"
cat >"$dir/gdnsd/config" <<CONF
options => { listen => [127.0.0.1:5302], zones_default_ttl => 20, run_dir => $dir/gdnsd/run, state_dir => $dir/gdnsd/state, udp_threads => 1, tcp_threads => 1 }
plugins => { geoip => {
	maps => { m => { geoip2_db => $dir/places.mmdb, datacenters => [eu, us, ap], auto_dc_coords => { eu => [53.35, -6.26], us => [38.95, -77.45], ap => [1.35, 103.99] } } },
	resources => { web => { map => m, service_types => up, dcmap => { eu => 192.0.2.1, us => 192.0.2.2, ap => 192.0.2.3 } } }
} }
CONF
cat >"$dir/gdnsd/zones/bench.test" <<ZONE
@ SOA ns1 hostmaster (1 7200 900 1209600 20)
@ NS ns1
ns1 A 127.0.0.1
www DYNA geoip!web
ZONE
gdnsd() {
	$in_ns taskset -c $server_core gdnsd -c "$dir/gdnsd" -D start >"$dir/gdnsd.log" 2>&1 &
	pids="$pids $!"
}

# Knot: its geoip module, by country.
mkdir -p "$dir/knot"
cat >"$dir/knot/knot.conf" <<CONF
server:
  listen: 127.0.0.1@5303
  rundir: $dir/knot
  user: root
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
  edns-client-subnet: on
log:
  - target: stderr
    any: warning
database:
  storage: $dir/knot
mod-geoip:
  - id: geo
    config-file: $dir/knot/geo.conf
    ttl: 20
    mode: geodb
    geodb-file: $dir/places.mmdb
    geodb-key: country/iso_code
zone:
  - domain: bench.test
    storage: $dir/gdnsd/zones
    file: bench.zone
    module: mod-geoip/geo
    zonefile-sync: -1
CONF
grep -v DYNA "$dir/gdnsd/zones/bench.test" | sed 's/^@/bench.test./; s/ns1/ns1.bench.test./g; s/hostmaster/hostmaster.bench.test./' >"$dir/knot/bench.zone"
sed -i "s#storage: $dir/gdnsd/zones#storage: $dir/knot#" "$dir/knot/knot.conf"
cat >"$dir/knot/geo.conf" <<CONF
www.bench.test:
  - geo: IE
    A: 192.0.2.1
  - geo: US
    A: 192.0.2.2
  - geo: SG
    A: 192.0.2.3
CONF
knot() {
	$in_ns taskset -c $server_core knotd -c "$dir/knot/knot.conf" >"$dir/knot.log" 2>&1 &
	pids="$pids $!"
}

# PowerDNS: its geoip backend, by country.
mkdir -p "$dir/pdns"
cat >"$dir/pdns/pdns.conf" <<CONF
launch=geoip
geoip-database-files=mmdb:$dir/places.mmdb
geoip-zones-file=$dir/pdns/zones.yaml
edns-subnet-processing=yes
local-address=127.0.0.1
local-port=5304
socket-dir=$dir/pdns
receiver-threads=1
distributor-threads=1
CONF
cat >"$dir/pdns/zones.yaml" <<CONF
domains:
- domain: bench.test
  ttl: 20
  records:
    bench.test:
      - soa: ns1.bench.test hostmaster.bench.test 1 7200 900 1209600 20
      - ns: ns1.bench.test
    ns1.bench.test:
      - a: 127.0.0.1
    ie.geo.bench.test:
      - a: 192.0.2.1
    us.geo.bench.test:
      - a: 192.0.2.2
    sg.geo.bench.test:
      - a: 192.0.2.3
  services:
    www.bench.test: '%cc.geo.bench.test'
CONF
pdns() {
	$in_ns taskset -c $server_core pdns_server --config-dir="$dir/pdns" --daemon=no --guardian=no >"$dir/pdns.log" 2>&1 &
	pids="$pids $!"
}

# answers tells whether the server places clients: two of different places must get different addresses.
answers() {
	a=$($in_ns dig +short +norec +time=1 +tries=1 +subnet=64.0.1.0/24 @"$1" -p "$2" "$3" A | grep '^192' | head -1) || return 1
	b=$($in_ns dig +short +norec +time=1 +tries=1 +subnet=64.1.1.0/24 @"$1" -p "$2" "$3" A | grep '^192' | head -1) || return 1
	[ -n "$a" ] && [ -n "$b" ] && [ "$a" != "$b" ]
}

# measure NAME ADDRESS PORT QUERIES [HOST]
measure() {
	tries=0
	until answers "$2" "$3" "${5:-www.bench.test}"; do
		tries=$((tries + 1))
		if [ "$tries" -ge 50 ]; then
			echo "$1 does not steer; its log:" && tail -5 "$dir/${1%% *}"*.log
			return
		fi
		sleep 0.2
	done
	$in_ns taskset -c $client_core dnsperf -B -s "$2" -p "$3" -d "$4" -l "$seconds" -c 8 -q 200 2>/dev/null |
		awk -v who="$1" '/Queries completed/ {done = $3} /Queries lost/ {lost = $3} /Queries per second/ {rate = $4} /Average Latency/ {lat = $4} /Average packet size/ {size = $NF}
			END {printf "%-22s %9.0f  %10d  %6d  %7.2f ms  %4d B\n", who, rate, done, lost, lat * 1000, size}'
}

# The same name in a zone that is signed; by queries of its own.
if [ -n "${signed:-}" ]; then
	mkdir "$dir/dnssec"
	(cd "$root" && go run ./routing/dns/bench -dir "$dir/dnssec" -name www.signed.test.)
fi
printf '%-22s %9s  %10s  %6s  %10s  %6s\n' server queries/s answered lost latency answer
for _ in $(seq "$rounds"); do
	landfall
	measure landfall 127.0.1.1 5301 "$dir/plain"
	[ -z "${signed:-}" ] || measure "landfall, signed" 127.0.1.1 5301 "$dir/dnssec/signed" www.signed.test
	stop
	for s in gdnsd:5302:gdnsd knot:5303:knotd pdns:5304:pdns_server; do
		command -v "${s##*:}" >/dev/null || continue
		name=${s%%:*} port=${s#*:}
		$name
		measure "$name" 127.0.0.1 "${port%%:*}" "$dir/plain"
		stop
	done
done
