package configs

import (
	"encoding/hex"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

func TestParseRecords(t *testing.T) {
	got, err := ParseRecords("Edge.Test", []string{"@ MX 10 mail.example.net.", "_dmarc 300 TXT \"v=DMARC1\"", "*.W A 192.0.2.1", "X HTTPS 1 . alpn=h2"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Record{
		{Owner: "edge.test.", Type: mdns.TypeMX, TTL: recordTTL, Data: unhex("000a046d61696c076578616d706c65036e657400")},
		{Owner: "_dmarc.edge.test.", Type: mdns.TypeTXT, TTL: 300, Data: append([]byte{8}, "v=DMARC1"...), Item: 1},
		{Owner: "*.w.edge.test.", Type: mdns.TypeA, TTL: recordTTL, Data: []byte{192, 0, 2, 1}, Item: 2},
		{Owner: "x.edge.test.", Type: mdns.TypeHTTPS, TTL: recordTTL, Data: unhex("0001000001000302" + "6832"), Item: 3},
	}
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Owner != w.Owner || g.Type != w.Type || g.TTL != w.TTL || g.Item != w.Item || hex.EncodeToString(g.Data) != hex.EncodeToString(w.Data) {
			t.Errorf("record %d is %+v, want %+v", i, g, w)
		}
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// FuzzParseRecords holds that what is accepted lies in the zone and is within the bounds, and that faults name an entry.
func FuzzParseRecords(f *testing.F) {
	for _, s := range []string{"@ MX 10 mail", "a CNAME b", "$GENERATE 1-5 h$ A 192.0.2.$", "$INCLUDE /etc/passwd", "$ORIGIN example.net.\nx A 192.0.2.1", "sub NS ns1\nsub DS 1 13 2 00", "( \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		records, err := ParseRecords("edge.test", []string{text})
		if err != nil && len(recordErrors(err)) == 0 {
			t.Errorf("a fault without its entry: %v", err)
		}
		for _, r := range records {
			if r.Owner != "edge.test." && !strings.HasSuffix(r.Owner, ".edge.test.") {
				t.Errorf("%q lies outside", r.Owner)
			}
			if r.Type == mdns.TypeSOA || r.Type == mdns.TypeRRSIG || len(r.Data) > maxRecordData || r.TTL > 1<<31-1 {
				t.Errorf("accepted %+v", r)
			}
		}
		if len(records) > maxRecords {
			t.Errorf("%d records", len(records))
		}
	})
}
