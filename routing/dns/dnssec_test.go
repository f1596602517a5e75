package dns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

var signTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// verify checks that each set of a signed answer's answer and authority section has a valid signature of the zone, but
// for a delegation's NS records, which are not the zone's to sign (RFC 4035 §2.2).
func verify(t *testing.T, m *mdns.Msg, keys []mdns.RR) {
	t.Helper()
	for _, section := range [][]mdns.RR{m.Answer, m.Ns} {
		type owner struct {
			name  string
			rtype uint16
		}
		sets, sigs := map[owner][]mdns.RR{}, map[owner][]*mdns.RRSIG{}
		for _, rr := range section {
			if sig, ok := rr.(*mdns.RRSIG); ok {
				o := owner{strings.ToLower(sig.Hdr.Name), sig.TypeCovered}
				sigs[o] = append(sigs[o], sig)
				continue
			}
			o := owner{strings.ToLower(rr.Header().Name), rr.Header().Rrtype}
			sets[o] = append(sets[o], rr)
		}
		for o, set := range sets {
			if o.rtype == mdns.TypeNS && o.name != "rich.test." {
				if len(sigs[o]) > 0 {
					t.Errorf("%v is signed", set)
				}
				continue
			}
			if len(sigs[o]) == 0 {
				t.Errorf("%v is not signed", set)
			}
			for _, sig := range sigs[o] {
				checkSignature(t, sig, set, keys)
			}
		}
	}
}

func checkSignature(t *testing.T, sig *mdns.RRSIG, set, keys []mdns.RR) {
	t.Helper()
	i := slices.IndexFunc(keys, func(k mdns.RR) bool { return k.(*mdns.DNSKEY).KeyTag() == sig.KeyTag })
	if i < 0 {
		t.Errorf("signed by key %d, which the zone does not have", sig.KeyTag)
		return
	}
	if err := sig.Verify(keys[i].(*mdns.DNSKEY), set); err != nil {
		t.Errorf("%v: %v", set, err)
	}
	if !sig.ValidityPeriod(signTime) || !sig.ValidityPeriod(signTime.Add(4*24*time.Hour)) {
		t.Errorf("%v is not valid now, and for days", sig)
	}
}

func keysOf(t *testing.T, s *Server) []mdns.RR {
	t.Helper()
	m := askServer(t, s, "rich.test.", mdns.TypeDNSKEY, true, false)
	var keys []mdns.RR
	for _, rr := range m.Answer {
		if k, ok := rr.(*mdns.DNSKEY); ok {
			keys = append(keys, k)
		}
	}
	verify(t, m, keys)
	return keys
}

// TestSignedAnswers holds that each answer of a signed zone is whole: positive, alias, wildcard, no data, no such name
// (RFC 9824), referral with and without DS.
func TestSignedAnswers(t *testing.T) {
	s := mustNew(t, signedOptions(t, signTime))
	keys := keysOf(t, s)
	if len(keys) != 2 {
		t.Fatalf("%d keys", len(keys))
	}
	for _, c := range []struct {
		query string
		rcode int
		nsec  string // the types that the proof names, or empty: no proof
	}{
		{"A www.rich.test.", 0, ""},
		{"AAAA any.svc.rich.test.", 0, ""},
		{"HTTPS www.rich.test.", 0, ""},
		{"SOA rich.test.", 0, ""},
		{"NS rich.test.", 0, ""},
		{"CDS rich.test.", 0, ""},
		{"CDNSKEY rich.test.", 0, ""},
		{"A alias2.rich.test.", 0, ""},
		{"TXT one.wild.rich.test.", 0, ""},
		{"TXT *.wild.rich.test.", 0, ""},
		{"ANY www.rich.test.", 0, ""},
		{"NSEC www.rich.test.", 0, "A AAAA RRSIG NSEC HTTPS"},
		{"MX www.rich.test.", 0, "A AAAA RRSIG NSEC HTTPS"},
		{"AAAA v4only.rich.test.", 0, "A RRSIG NSEC HTTPS"},
		{"SRV rich.test.", 0, "A NS SOA MX TXT AAAA RRSIG NSEC DNSKEY CDS CDNSKEY HTTPS CAA"},
		{"A _tcp.rich.test.", 0, "RRSIG NSEC"},
		{"MX one.wild.rich.test.", 0, "A TXT RRSIG NSEC"},
		{"MX alias.rich.test.", 0, "A AAAA RRSIG NSEC HTTPS"},
		{"NSEC alias.rich.test.", 0, "CNAME RRSIG NSEC"},
		{"NSEC taken.rich.test.", 0, "CNAME RRSIG NSEC"},
		{"DS cut.rich.test.", 0, "NS RRSIG NSEC"},
		{"A nothing.rich.test.", 0, "RRSIG NSEC NXNAME"},
		{"A dead.rich.test.", 0, "RRSIG NSEC NXNAME"},
		{"HTTPS ns1.rich.test.", 0, "A AAAA RRSIG NSEC"},
		{"A www.plain.rich.test.", 0, "NS RRSIG NSEC"},
		{"DS plain.rich.test.", 0, "NS RRSIG NSEC"},
		{"A www.child.rich.test.", 0, ""},
		{"DS child.rich.test.", 0, ""},
		{"TYPE128 www.rich.test.", mdns.RcodeFormatError, ""},
	} {
		t.Run(c.query, func(t *testing.T) {
			what, name, _ := strings.Cut(c.query, " ")
			qtype, ok := mdns.StringToType[what]
			if !ok {
				_, _ = fmt.Sscanf(what, "TYPE%d", &qtype)
			}
			m := askServer(t, s, name, qtype, true, false)
			if m.Rcode != c.rcode {
				t.Errorf("rcode %d", m.Rcode)
			}
			verify(t, m, keys)
			if got := proof(m); got != c.nsec {
				t.Errorf("the proof names %q, want %q", got, c.nsec)
			}
		})
	}
	// RFC 9824 §5: who can tell the proofs apart gets the plain rcode.
	if m := askServer(t, s, "nothing.rich.test.", mdns.TypeA, true, true); m.Rcode != mdns.RcodeNameError || proof(m) != "RRSIG NSEC NXNAME" {
		t.Errorf("with CO: rcode %d, proof %q", m.Rcode, proof(m))
	}
	if m := askServer(t, s, "nothing.rich.test.", mdns.TypeA, false, false); m.Rcode != mdns.RcodeNameError || proof(m) != "" {
		t.Errorf("without DO: rcode %d, proof %q", m.Rcode, proof(m))
	}
}

// proof is the types of an answer's NSEC record, which covers nothing but its own name.
func proof(m *mdns.Msg) string {
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		if n, ok := rr.(*mdns.NSEC); ok {
			if n.NextDomain != `\000.`+n.Hdr.Name {
				return "covers up to " + n.NextDomain
			}
			var names []string
			for _, t := range n.TypeBitMap {
				if t == typeNXNAME {
					names = append(names, "NXNAME")
					continue
				}
				names = append(names, mdns.TypeToString[t])
			}
			return strings.Join(names, " ")
		}
	}
	return ""
}

// TestRollover walks a new key through its life: published before it signs, gone after it stopped (RFC 6781 §4.1.1.1).
func TestRollover(t *testing.T) {
	dir := t.TempDir()
	stamp := func(d time.Duration) string { return signTime.Add(d).Format("20060102150405") }
	old := writeKey(t, dir, "rich.test.", 257, "Inactive: "+stamp(48*time.Hour)+"\nDelete: "+stamp(72*time.Hour)+"\n")
	next := writeKey(t, dir, "rich.test.", 257, "Publish: "+stamp(24*time.Hour)+"\nActivate: "+stamp(48*time.Hour)+"\n")
	keys, err := LoadKeys(dir, "rich.test", signTime)
	if err != nil {
		t.Fatal(err)
	}
	now := signTime
	o := richOptions(t)
	o.Zones[0].Keys = keys
	o.Now = func() time.Time { return now }
	s := mustNew(t, o)
	for _, c := range []struct {
		after    time.Duration
		have, by []uint16
	}{
		{0, []uint16{old.KeyTag()}, []uint16{old.KeyTag()}},
		{25 * time.Hour, []uint16{old.KeyTag(), next.KeyTag()}, []uint16{old.KeyTag()}},
		{49 * time.Hour, []uint16{old.KeyTag(), next.KeyTag()}, []uint16{next.KeyTag()}},
		{73 * time.Hour, []uint16{next.KeyTag()}, []uint16{next.KeyTag()}},
	} {
		now = signTime.Add(c.after)
		var have, by []uint16
		for _, rr := range slices.Concat(askServer(t, s, "rich.test.", mdns.TypeDNSKEY, false, false).Answer, askServer(t, s, "www.rich.test.", mdns.TypeA, true, false).Answer) {
			switch rr := rr.(type) {
			case *mdns.DNSKEY:
				have = append(have, rr.KeyTag())
			case *mdns.RRSIG:
				by = append(by, rr.KeyTag)
			}
		}
		slices.Sort(have)
		slices.Sort(c.have)
		if !slices.Equal(have, c.have) || !slices.Equal(by, c.by) {
			t.Errorf("after %s: keys %v signed by %v, want %v by %v", c.after, have, by, c.have, c.by)
		}
	}
	if _, err := LoadKeys(dir, "rich.test", signTime.Add(-time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := LoadKeys(t.TempDir(), "rich.test", signTime); err == nil || !strings.Contains(err.Error(), "dnssec-keygen") {
		t.Errorf("an empty folder: %v", err)
	}
}

// TestForgottenRollover holds that a zone whose only key has become inactive is signed on, as long as the key is published.
func TestForgottenRollover(t *testing.T) {
	dir := t.TempDir()
	writeKey(t, dir, "rich.test.", 257, "Inactive: "+signTime.Add(time.Hour).Format("20060102150405")+"\n")
	keys, err := LoadKeys(dir, "rich.test", signTime)
	if err != nil {
		t.Fatal(err)
	}
	o := richOptions(t)
	o.Zones[0].Keys = keys
	o.Now = func() time.Time { return signTime.Add(2 * time.Hour) }
	s := mustNew(t, o)
	verify(t, askServer(t, s, "www.rich.test.", mdns.TypeA, true, false), keysOf(t, s))
}

// TestRolloverChain rolls the one key of a zone by publish-then-sign with a parent that follows CDS, and holds that a
// resolver never loses the chain: whatever it may still have in its cache (the parent's DS and the zone's keys, each up to
// a TTL old) proves the keys and the answers of now.
func TestRolloverChain(t *testing.T) {
	dir := t.TempDir()
	stamp := func(d time.Duration) string { return signTime.Add(d).Format("20060102150405") }
	const hour = time.Hour
	// Both sign the keys from the new one's publication to the old one's end; the parent is told in between.
	writeKey(t, dir, "rich.test.", 257, "SyncDelete: "+stamp(30*hour)+"\nInactive: "+stamp(48*hour)+"\nDelete: "+stamp(72*hour)+"\n")
	writeKey(t, dir, "rich.test.", 257, "Publish: "+stamp(24*hour)+"\nActivate: "+stamp(27*hour)+"\nSyncPublish: "+stamp(30*hour)+"\n")
	keys, err := LoadKeys(dir, "rich.test", signTime)
	if err != nil {
		t.Fatal(err)
	}
	now := signTime
	o := richOptions(t)
	o.Zones[0].Keys = keys
	o.Now = func() time.Time { return now }
	s := mustNew(t, o)
	ask := func(at time.Duration, qtype uint16) *mdns.Msg {
		now = signTime.Add(at)
		name := "rich.test."
		if qtype == mdns.TypeA {
			name = "www.rich.test."
		}
		return askServer(t, s, name, qtype, true, false)
	}
	const parentLag = 12 * hour // the parent looks for CDS twice a day
	seen := map[uint16]bool{}
	for at := parentLag + hour; at < 96*hour; at += hour / 2 {
		for _, ds := range []time.Duration{at - parentLag, at} { // what the parent may have heard last
			cds := ask(ds, mdns.TypeCDS)
			keyMsg := ask(at, mdns.TypeDNSKEY)
			if !provenBy(cds.Answer, keyMsg) {
				t.Fatalf("after %s: no DS of %s proves the keys", at, ds)
			}
		}
		for _, cached := range []time.Duration{at - keyTTL*time.Second, at} {
			var have []mdns.RR
			for _, rr := range ask(cached, mdns.TypeDNSKEY).Answer {
				if k, ok := rr.(*mdns.DNSKEY); ok {
					have = append(have, k)
					seen[k.KeyTag()] = true
				}
			}
			if !signedByOne(ask(at, mdns.TypeA), have) {
				t.Fatalf("after %s: the keys of %s prove no answer", at, cached)
			}
		}
	}
	if last := ask(96*hour, mdns.TypeCDNSKEY); len(seen) != 2 || len(last.Answer) != 2 { // one key and its signature
		t.Errorf("%d keys were seen; at the end: %v", len(seen), last.Answer)
	}
	if now = signTime.Add(31 * hour); len(DS("rich.test", keys, now)) != 1 {
		t.Errorf("DS records: %v", DS("rich.test", keys, now))
	}
}

// provenBy tells whether a signature of the key set is by a key that the CDS records name.
func provenBy(cds []mdns.RR, keyMsg *mdns.Msg) bool {
	var named []mdns.RR
	for _, rr := range keyMsg.Answer {
		k, ok := rr.(*mdns.DNSKEY)
		if ok && slices.ContainsFunc(cds, func(rr mdns.RR) bool {
			c, ok := rr.(*mdns.CDS)
			return ok && strings.EqualFold(k.ToDS(c.DigestType).Digest, c.Digest)
		}) {
			named = append(named, k)
		}
	}
	return signedByOne(keyMsg, named)
}

// signedByOne tells whether one of the keys has made a good signature of an answer of one set.
func signedByOne(m *mdns.Msg, keys []mdns.RR) bool {
	var set []mdns.RR
	var sigs []*mdns.RRSIG
	for _, rr := range m.Answer {
		if sig, ok := rr.(*mdns.RRSIG); ok {
			sigs = append(sigs, sig)
		} else {
			set = append(set, rr)
		}
	}
	for _, sig := range sigs {
		for _, k := range keys {
			if k := k.(*mdns.DNSKEY); k.KeyTag() == sig.KeyTag && sig.Verify(k, set) == nil {
				return true
			}
		}
	}
	return false
}

// TestNextName holds the name right behind another (RFC 4471), at the bounds of its length too.
func TestNextName(t *testing.T) {
	label := func(n int) string { return strings.Repeat("a", n) }
	for _, s := range []string{"www.test", label(63) + "." + label(63) + "." + label(63) + "." + label(59), label(62) + "." + label(63) + "." + label(63) + "." + label(61),
		label(63) + "." + label(63) + "." + label(63) + "." + label(61)} {
		n, err := parseName(s)
		if err != nil {
			t.Fatal(err)
		}
		var next name
		if used, err := next.parse(appendNext(nil, &n)); err != nil || used != next.length {
			t.Errorf("the name behind %s: %v", s, err)
		}
	}
}

func BenchmarkRespondSigned(b *testing.B) {
	for _, query := range []string{"A www.rich.test.", "A www.rich.test. do", "A nothing.rich.test. do"} {
		b.Run(query, func(b *testing.B) {
			s := mustNew(b, signedOptions(b, signTime))
			msg := wireOf(b, query)
			dst := make([]byte, 0, maxUDP)
			b.ReportAllocs()
			for b.Loop() {
				s.Respond(dst[:0], msg, resolverAddr, true)
			}
		})
	}
}
