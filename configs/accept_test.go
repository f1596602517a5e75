package configs

import (
	"errors"
	"strings"
	"testing"
)

const goodToken = "admin: {tokens: [{name: a, hash: $2a$10$PvTj4j3mCO9hwbYJzqKFCeWw4EhN1oTCnQjNCbVtNXjSyCwmUpa8e}]}\n"

// TestAccepted holds that the rules refuse nothing that is right.
func TestAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"admin elsewhere with a token":    service("listen: {admin: ':9901'}\n" + goodToken),
		"admin on IPv6 loopback":          service("listen: {admin: '[::1]:9901'}"),
		"admin on localhost":              service("listen: {admin: 'localhost:0'}"),
		"several listeners":               service("listen: {http: [':80', '[::]:8080', '127.0.0.1:80'], trusted_proxies: ['::1', 10.0.0.0/8, 0.0.0.0/0]}"),
		"two listeners on any free port":  service("listen: {http: [':0', ':0']}"),
		"sections without keys":           service("regions:\nlisten:\nmesh:\ndns:\n  zones:\nadmin:\n"),
		"a region without a place":        service("regions: {eu-west: , us-east: {}}"),
		"all down to a region":            service("regions: {eu-west: {}}\nhealth: {all_down: eu-west}"),
		"no compression":                  service("compression: {algorithms: []}"),
		"no cache":                        service("cache: {memory: 0}"),
		"a small cache":                   service("cache: {memory: 1MiB}"),
		"a short total":                   service("    routes: [{timeout: {total: 1s}}]"),
		"ACME at a test CA":               "listen: {http: [':80'], https: [':443']}\ntls: {acme: {directory: 'http://127.0.0.1:14000/dir', challenge: http}}\nservices: {a: {hosts: [a.example.com], pools: {any: {origins: ['http://b:1']}}}}",
		"certificates without a listener": service("tls: {certificates: [{cert: a.pem, key: a.key}]}"),
		"a wildcard beside its suffix":    `services: {a: {hosts: ["*.example.com", example.com, a.example.com, my_host, 10.0.0.1], pools: {any: {origins: ["http://b:1"]}}}}`,
		"origins of every form":           `services: {a: {hosts: [a], pools: {any: {origins: ["http://[::1]:80", "https://10.0.0.1:443", "http://Web-1_a.internal:65535"]}}}}`,
		"routes from narrow to wide":      service("    routes: [{match: {path: /a/b}}, {match: {path: /a/*, methods: [GET]}}, {match: {path: /a/*}}, {match: {path: /a}}, {match: {path: /}}, {match: {path: /*}}]"),
		"methods that nobody knows":       service("    routes: [{match: {methods: [GET, PROPFIND, M-SEARCH]}}]"),
		"a mail box in the zone":          service("listen: {dns: [':53']}\ndns: {zones: {edge.example.com: {contact: ops+dns@example.com, nameservers: [ns1, a.ns, ns.example.net.]}}}"),
		"a token of every right":          service(strings.Replace(goodToken, "}]", ", allow: [read, drain, purge]}]", 1)),
		"several gossip keys":             service("mesh: {key: [" + testKey + ", AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]}"),
		"the core tags":                   "!!map\nfleet: !!str shop\n" + service(""),
		"windows line ends":               strings.ReplaceAll(service("fleet: shop\n"), "\n", "\r\n"),
		"a byte order mark":               "\ufeff" + service(""),
		"document marks":                  "---\n" + service("\n") + "...\n",
	} {
		if _, err := Parse("test.yaml", []byte(text), "", environment); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// TestHostileFiles holds that a file can't make the parser's work, or what it reports, grow out of proportion.
func TestHostileFiles(t *testing.T) {
	long := strings.Repeat("k", 1<<17)
	for name, text := range map[string]string{
		"a long name above many values": "services: {" + long + ": {hosts: [" + strings.Repeat("a, ", 1<<13) + "]}}",
		"many unknown keys":             service("") + manyKeys(1<<12),
		"many bad routes":               service("    routes: [" + strings.Repeat("{cache: x}, ", 1<<12) + "]"),
		"many routes alike":             service("    routes: [" + strings.Repeat("{}, ", 1<<12) + "]"),
		"long bad values":               "fleet: &a " + long + "\nhealth: {panic: *a, quorum: *a, all_down: *a}\nlisten: {http: [*a, *a], trusted_proxies: [*a]}\n" + service(""),
		"deep lists":                    "fleet: " + strings.Repeat("[", 1<<17),
		"deep mappings":                 "fleet: " + strings.Repeat("{a: ", 5000) + strings.Repeat("}", 5000),
		"a path of slashes":             service("    routes: [{match: {path: " + strings.Repeat("/", 1<<17) + "}}]"),
		"bytes that are not UTF-8":      "fleet: \xff\xfe\n",
		"UTF-16":                        "\xff\xfef\x00l\x00:\x00 \x00a\x00",
		"NUL":                           "fleet: a\x00b\n",
	} {
		_, err := Parse("x.yaml", []byte(text), "", environment)
		var all Errors
		if !errors.As(err, &all) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		if size := len(err.Error()); len(all) > maxErrors+1 || size > 1<<20 {
			t.Errorf("%s: %d faults in %d bytes", name, len(all), size)
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat("k", 1+i%50) + string(rune('a'+i%26)) + ": 1\n")
	}
	return b.String()
}
