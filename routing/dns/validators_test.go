package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"landfall/configs"
)

// These tests hand signed answers to validators that others wrote: delv (BIND) and unbound. TestSignedAnswers does the
// same with this process's own library wherever they are missing.

// tool is the path of a program, or the end of the test.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian: apt install %s): signatures are checked by this process's own library only", name, pkg)
	}
	return path
}

// validated are questions with what a validator has to find in the answer: the data, or why there is none.
// delv, which takes its time to start, is asked the first ones only.
var validated = []struct{ query, has string }{
	{"A www.rich.test.", "192.0.2.1"},
	{"HTTPS www.rich.test.", "ipv4hint"},
	{"A alias2.rich.test.", "192.0.2.7"},
	{"TXT one.wild.rich.test.", "any"},
	{"DS child.rich.test.", "4711"},
	{"DS plain.rich.test.", ""},
	{"MX www.rich.test.", ""},
	{"MX one.wild.rich.test.", ""},
	{"A nothing.rich.test.", ""},
	{"A dead.rich.test.", ""},
	{"AAAA any.svc.rich.test.", "2001:db8:1::1"},
	{"SOA rich.test.", "ns1.rich.test."},
	{"NS rich.test.", "ns2.rich.test."},
	{"TXT rich.test.", "another"},
	{"A sub.one.walias.rich.test.", "192.0.2.7"},
	{"A _tcp.rich.test.", ""},
	{"A nothing.at.all.rich.test.", ""},
}

// forDelv is how many of them delv is asked.
const forDelv = 10

// delv asks a server and tells what delv makes of the answer.
func delv(t *testing.T, server, anchors, query string) string {
	t.Helper()
	path := tool(t, "delv", "bind9-dnsutils")
	what, name, _ := strings.Cut(query, " ")
	host, port, _ := net.SplitHostPort(server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "@"+host, "-p", port, "-a", anchors, "+root=rich.test", name, what).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

func writeAnchors(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "anchors")
	text := "trust-anchors {\n"
	for _, l := range lines {
		text += "\t" + l + ";\n"
	}
	if err := os.WriteFile(file, []byte(text+"};\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// anchorOf turns a CDS record into what delv trusts.
func anchorOf(c *mdns.CDS) string {
	return fmt.Sprintf("rich.test. static-ds %d %d %d %q", c.KeyTag, c.Algorithm, c.DigestType, strings.ToUpper(c.Digest))
}

func TestDelv(t *testing.T) {
	tool(t, "delv", "bind9-dnsutils")
	o := signedOptions(t, time.Now())
	o.Now = nil
	r := start(t, "127.0.0.1:0", func(base *Options) { o.Metrics = base.Metrics; *base = o })
	var lines []string
	for _, rr := range askServer(t, r.Server, "rich.test.", mdns.TypeCDS, false, false).Answer {
		lines = append(lines, anchorOf(rr.(*mdns.CDS)))
	}
	anchors := writeAnchors(t, lines...)
	t.Run("a wrong anchor", func(t *testing.T) { // it does not call everything valid
		t.Parallel()
		wrong := writeAnchors(t, `rich.test. static-ds 1 13 2 "`+strings.Repeat("AB", 32)+`"`)
		if got := delv(t, r.addr, wrong, "A www.rich.test."); strings.Contains(got, "fully validated") {
			t.Errorf("delv says: %s", got)
		}
	})
	for _, c := range validated[:forDelv] {
		t.Run(c.query, func(t *testing.T) {
			t.Parallel()
			got := delv(t, r.addr, anchors, c.query)
			if want := "; fully validated"; c.has != "" && (!strings.Contains(got, want) || !strings.Contains(got, c.has)) {
				t.Errorf("delv says: %s", got)
			}
			// Behind an alias it calls the negative half a failure to resolve, and the proof valid all the same.
			alias := strings.Contains(got, "CNAME") && strings.Contains(got, "ncache nxrrset\n; fully validated")
			if want := "; negative response, fully validated"; c.has == "" && !strings.Contains(got, want) && !alias {
				t.Errorf("delv says: %s", got)
			}
		})
	}
}

// TestDelvRollover rolls a key by publish-then-sign, with a server whose clock runs from four days ago until now, so that
// what it signs is valid now. delv has what a parent that looks for CDS twice a day would have.
func TestDelvRollover(t *testing.T) {
	tool(t, "delv", "bind9-dnsutils")
	const hour = time.Hour
	begin := time.Now().Add(-96 * hour)
	stamp := func(d time.Duration) string { return begin.Add(d).UTC().Format("20060102150405") }
	dir := t.TempDir()
	old := writeKey(t, dir, "rich.test.", 257, "SyncDelete: "+stamp(30*hour)+"\nInactive: "+stamp(48*hour)+"\nDelete: "+stamp(72*hour)+"\n")
	next := writeKey(t, dir, "rich.test.", 257, "Publish: "+stamp(24*hour)+"\nActivate: "+stamp(27*hour)+"\nSyncPublish: "+stamp(30*hour)+"\n")
	keys, err := LoadKeys(dir, "rich.test", begin)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Duration{13 * hour, 29 * hour, 35 * hour, 49 * hour, 95 * hour} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			o := richOptions(t)
			o.Zones[0].Keys = keys
			now := begin.Add(at - 12*hour)
			o.Now = func() time.Time { return now }
			s := mustNew(t, o)
			var lines []string
			for _, rr := range askServer(t, s, "rich.test.", mdns.TypeCDS, false, false).Answer {
				lines = append(lines, anchorOf(rr.(*mdns.CDS)))
			}
			o.Now = func() time.Time { return begin.Add(at) }
			r := start(t, "127.0.0.1:0", func(base *Options) { o.Metrics = base.Metrics; *base = o })
			if got := delv(t, r.addr, writeAnchors(t, lines...), "A www.rich.test."); !strings.Contains(got, "; fully validated") {
				t.Errorf("with %v (old %d, next %d), delv says: %s", lines, old.KeyTag(), next.KeyTag(), got)
			}
		})
	}
}

// TestUnbound puts unbound in front, as a validating resolver: of a zone, of a zone below it that is signed and one that
// is not, and of one whose signatures are another key's.
func TestUnbound(t *testing.T) {
	path := tool(t, "unbound", "unbound")
	dir := t.TempDir()
	childKeys := func(zone string) ([]*Key, []string) {
		keysDir := t.TempDir()
		writeKey(t, keysDir, zone+".", 257, "")
		keys, err := LoadKeys(keysDir, zone, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return keys, DS(zone, keys, time.Now())
	}
	good, goodDS := childKeys("signed.rich.test")
	bad, _ := childKeys("bogus.rich.test")
	_, otherDS := childKeys("bogus.rich.test")

	parent := signedOptions(t, time.Now())
	parent.Now, parent.ResponseRate = nil, -1
	records, err := configs.ParseRecords("rich.test", append([]string{
		"signed NS ns.signed", "ns.signed A 127.0.0.1", goodDS[0], "unsigned NS ns.unsigned", "ns.unsigned A 127.0.0.1",
		"bogus NS ns.bogus", "ns.bogus A 127.0.0.1", otherDS[0],
	}, richRecords...))
	if err != nil {
		t.Fatal(err)
	}
	parent.Zones[0].Records = records
	up := start(t, "127.0.0.1:0", func(base *Options) { parent.Metrics = base.Metrics; *base = parent })
	down := start(t, "127.0.0.1:0", func(o *Options) {
		o.Zones, o.Steer, o.Answers = nil, newFleet("www.signed.rich.test", "www.unsigned.rich.test", "www.bogus.rich.test"), 2
		for zone, keys := range map[string][]*Key{"signed.rich.test": good, "unsigned.rich.test": nil, "bogus.rich.test": bad} {
			z := testZone(zone, "www."+zone)
			z.Keys = keys
			o.Zones = append(o.Zones, z)
		}
	})
	front := startUnbound(t, path, dir, DS("rich.test", parent.Zones[0].Keys, time.Now()), map[string]string{
		"rich.test": up.addr, "signed.rich.test": down.addr, "unsigned.rich.test": down.addr, "bogus.rich.test": down.addr,
	})
	for _, c := range validated {
		m := resolve(t, front, c.query)
		if m.Rcode != mdns.RcodeSuccess && (c.has != "" || m.Rcode != mdns.RcodeNameError) || !m.AuthenticatedData {
			t.Errorf("%s: %s, authenticated: %t", c.query, mdns.RcodeToString[m.Rcode], m.AuthenticatedData)
		}
		if text := fmt.Sprint(m.Answer); !strings.Contains(text, c.has) || c.has == "" && strings.Contains(text, "192.0.2") {
			t.Errorf("%s: %s, want %s", c.query, text, c.has)
		}
	}
	for query, want := range map[string]string{
		"A www.signed.rich.test.": "NOERROR authenticated 2", "A no.signed.rich.test.": "NOERROR authenticated 0", "AAAA www.unsigned.rich.test.": "NOERROR plain 2",
		"A no.unsigned.rich.test.": "NXDOMAIN plain 0", "A www.bogus.rich.test.": "SERVFAIL plain 0",
	} {
		m := resolve(t, front, query)
		how, count := "plain", 0
		if m.AuthenticatedData {
			how = "authenticated"
		}
		for _, rr := range m.Answer {
			if rr.Header().Rrtype != mdns.TypeRRSIG {
				count++
			}
		}
		if got := fmt.Sprintf("%s %s %d", mdns.RcodeToString[m.Rcode], how, count); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func resolve(t *testing.T, server, query string) *mdns.Msg {
	t.Helper()
	what, name, _ := strings.Cut(query, " ")
	m := new(mdns.Msg).SetQuestion(name, mdns.StringToType[what])
	m.SetEdns0(1232, true)
	in, _, err := (&mdns.Client{Net: "tcp", Timeout: 20 * time.Second}).Exchange(m, server)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return in
}

// startUnbound runs unbound with stub zones and trust anchors, and returns its address.
func startUnbound(t *testing.T, path, dir string, anchors []string, stubs map[string]string) string {
	t.Helper()
	for range 3 { // the port may be taken between here and there
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(ln.Addr().String())
		_ = ln.Close()
		conf := fmt.Sprintf(`server:
	directory: %q
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	verbosity: 0
	num-threads: 1
	interface: 127.0.0.1@%d
	do-not-query-localhost: no
	local-zone: "test." nodefault
	module-config: "validator iterator"
	edns-buffer-size: 1232
`, dir, at.Port())
		for _, a := range anchors {
			conf += fmt.Sprintf("\ttrust-anchor: %q\n", a)
		}
		for zone, addr := range stubs {
			conf += fmt.Sprintf("stub-zone:\n\tname: %s\n\tstub-addr: %s\n", zone, strings.Replace(addr, ":", "@", 1))
		}
		conf += "remote-control:\n\tcontrol-enable: no\n"
		file := filepath.Join(dir, "unbound.conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cmd := exec.CommandContext(ctx, path, "-d", "-c", file)
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			cancel()
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		t.Cleanup(func() { cancel(); <-ended })
		if answersSoon(at.String(), ended) {
			return at.String()
		}
	}
	t.Fatal("unbound did not start")
	return ""
}

// answersSoon waits for a server that was just started.
func answersSoon(addr string, ended <-chan struct{}) bool {
	for deadline := time.After(20 * time.Second); ; {
		_, _, err := (&mdns.Client{Net: "tcp", Timeout: time.Second}).Exchange(new(mdns.Msg).SetQuestion("localhost.", mdns.TypeA), addr)
		if err == nil {
			return true
		}
		select {
		case <-ended:
			return false
		case <-deadline:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}
