package configs

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	mdns "github.com/miekg/dns"
)

// Record is one record of a zone's static part, in wire form (RFC 1035 section 3.2.1).
type Record struct {
	Owner string // absolute, lower case, with a final dot
	Type  uint16
	TTL   uint32 // seconds
	Data  []byte // not compressed
	Item  int    // which entry of the zone's records it comes from, from 0
}

// RecordError is one entry of a zone's records that is no record, or may not stand there.
type RecordError struct {
	Item int // which entry, from 0
	Msg  string
}

// Error is the fault with its place.
func (e *RecordError) Error() string { return fmt.Sprintf("record %d: %s", e.Item+1, e.Msg) }

// Bounds and defaults of a zone's static part.
const (
	// recordTTL is the TTL of records that give none, in seconds: they change with the config only.
	recordTTL = 3600
	// maxRecords bounds a zone's records: one line of $GENERATE makes many.
	maxRecords = 10000
)

// ParseRecords reads the entries of a zone's records, each a line in master-file form (RFC 1035 section 5.1). Names without a final dot are relative to the zone. All faults are returned, joined; each is a *RecordError.
func ParseRecords(zone string, entries []string) ([]Record, error) {
	p := recordParser{origin: mdns.CanonicalName(zone)}
	for i, text := range entries {
		p.entry(i, text)
	}
	p.together()
	return p.out, errors.Join(p.errs...)
}

type recordParser struct {
	origin string
	out    []Record
	errs   []error
}

func (p *recordParser) fault(item int, format string, args ...any) {
	p.errs = append(p.errs, &RecordError{Item: item, Msg: fmt.Sprintf(format, args...)})
}

// entry reads one entry.
func (p *recordParser) entry(item int, text string) {
	z := mdns.NewZoneParser(strings.NewReader(text), p.origin, "")
	z.SetDefaultTTL(recordTTL)
	count := 0
	for rr, ok := z.Next(); ok; rr, ok = z.Next() {
		count++
		if len(p.out) >= maxRecords {
			p.fault(item, "the zone has more than %d records", maxRecords)
			return
		}
		if why := p.refuse(rr); why != "" {
			p.fault(item, "%s %s: %s", rr.Header().Name, mdns.Type(rr.Header().Rrtype), why)
			continue
		}
		r, err := record(rr, item)
		if err != nil {
			p.fault(item, "%s can't be sent: %v", rr.Header().Name, err)
			continue
		}
		p.out = append(p.out, r)
	}
	if err := z.Err(); err != nil {
		p.fault(item, "%s", parseErrorText(err))
	} else if count == 0 {
		p.fault(item, `holds no record: write one such as "@ MX 10 mail.example.net."`)
	}
}

// parseErrorText makes the library's text (dns: bad MX Pref: "x" at line: 1:9) one for people.
func parseErrorText(err error) string {
	msg := strings.TrimPrefix(err.Error(), "dns: ")
	if text, at, ok := strings.Cut(msg, " at line: "); ok {
		if _, col, ok := strings.Cut(at, ":"); ok {
			return fmt.Sprintf("%s at character %s of the record", text, col)
		}
		return text
	}
	return msg
}

// refuse tells why a record may not stand in a zone of ours.
func (p *recordParser) refuse(rr mdns.RR) string {
	h := rr.Header()
	apex := mdns.CanonicalName(h.Name) == p.origin
	switch {
	case h.Class != mdns.ClassINET:
		return "only class IN is served"
	case !mdns.IsSubDomain(p.origin, mdns.CanonicalName(h.Name)):
		return "lies outside the zone " + strings.TrimSuffix(p.origin, ".")
	case h.Ttl > 1<<31-1:
		return "the TTL is too large (RFC 2181 section 8)"
	case strings.Contains(strings.TrimPrefix(h.Name, "*."), "*"):
		return "a * stands only alone, as the first label"
	}
	switch h.Rrtype {
	case mdns.TypeSOA:
		return "the SOA record is made here: see contact and negative_ttl"
	case mdns.TypeNS:
		if apex {
			return "the zone's own name servers stand under nameservers"
		}
		if strings.HasPrefix(h.Name, "*.") {
			return "a wildcard can't be delegated (RFC 4592 section 4.2)"
		}
	case mdns.TypeDS:
		if apex {
			return "the DS record of a zone belongs into its parent"
		}
	case mdns.TypeCNAME:
		if apex {
			return "the apex can't be an alias (RFC 1034 section 3.6.2): make it a service's host, whose addresses are answered there"
		}
	case mdns.TypeDNSKEY, mdns.TypeCDS, mdns.TypeCDNSKEY, mdns.TypeRRSIG, mdns.TypeNSEC, mdns.TypeNSEC3, mdns.TypeNSEC3PARAM:
		return "is made by dnssec, not written"
	case mdns.TypeDNAME:
		return "is not served: use a delegation, or a CNAME for each name"
	}
	if h.Rrtype == mdns.TypeOPT || h.Rrtype >= 128 && h.Rrtype <= 255 {
		return "is no type of data"
	}
	return ""
}

// record packs one record.
func record(rr mdns.RR, item int) (Record, error) {
	lowerNames(rr)
	buf := make([]byte, 65535+512)
	end, err := mdns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return Record{}, err
	}
	owner, off, err := mdns.UnpackDomainName(buf[:end], 0)
	if err != nil {
		return Record{}, err
	}
	data := buf[off+10 : end]
	if len(data) > maxRecordData {
		return Record{}, fmt.Errorf("%d bytes of data: at most %d", len(data), maxRecordData)
	}
	return Record{Owner: strings.ToLower(owner), Type: rr.Header().Rrtype, TTL: rr.Header().Ttl, Data: append([]byte(nil), data...), Item: item}, nil
}

// lowerNames puts the names in a record's data in lower case, their canonical form (RFC 4034 section 6.2), so that what is
// sent is what is signed.
func lowerNames(rr mdns.RR) {
	v := reflect.ValueOf(rr).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("dns")
		if (tag == "domain-name" || tag == "cdomain-name") && v.Field(i).Kind() == reflect.String {
			v.Field(i).SetString(mdns.CanonicalName(v.Field(i).String()))
		}
	}
}

// maxRecordData bounds a record's data, in bytes, so that any set's answer fits a message.
const maxRecordData = 4096

// together checks what records at one name say together.
func (p *recordParser) together() {
	type at struct{ types map[uint16]int }
	names := map[string]*at{}
	for _, r := range p.out {
		if names[r.Owner] == nil {
			names[r.Owner] = &at{types: map[uint16]int{}}
		}
		names[r.Owner].types[r.Type]++
	}
	cuts := map[string]bool{}
	for name, a := range names {
		cuts[name] = a.types[mdns.TypeNS] > 0
	}
	told := map[string]bool{}
	for _, r := range p.out {
		a := names[r.Owner].types
		if told[r.Owner] {
			continue
		}
		told[r.Owner] = true
		switch {
		case a[mdns.TypeCNAME] > 1 || a[mdns.TypeCNAME] == 1 && len(a) > 1:
			p.fault(r.Item, "%s is an alias (CNAME) and so can have no other record (RFC 1034 section 3.6.2)", r.Owner)
		case a[mdns.TypeDS] > 0 && a[mdns.TypeNS] == 0:
			p.fault(r.Item, "%s has a DS record but is not delegated: give its NS records", r.Owner)
		}
		if cut := p.below(r.Owner, cuts); cut != "" && (a[mdns.TypeA]+a[mdns.TypeAAAA] == 0 || len(a) > 2) {
			p.fault(r.Item, "%s lies below the delegation of %s: only the addresses of its name servers may", r.Owner, cut)
		}
	}
}

// below is the delegated name that owner lies under, or "".
func (p *recordParser) below(owner string, cuts map[string]bool) string {
	for i, end := mdns.NextLabel(owner, 0); !end; i, end = mdns.NextLabel(owner, i) {
		if cuts[owner[i:]] {
			return owner[i:]
		}
	}
	return ""
}
