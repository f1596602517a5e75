package geo

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/oschwald/maxminddb-golang/v2"
)

// probeRecords is how many networks, and how many addresses spread over IPv4, are tried before a database is used. A full
// verification of a City database takes many seconds; this takes milliseconds and finds a wrong kind of database, and
// a damaged one in practice.
const probeRecords = 4096

// probe checks that the database can be read and holds what we need.
func probe(r *maxminddb.Reader, useful func(*record) bool) error {
	found, seen := 0, 0
	// Networks without data count, too: a damaged tree may go round in circles without ever coming to a record.
	for res := range r.Networks(maxminddb.IncludeNetworksWithoutData()) {
		ok, err := try(res, useful)
		if err != nil {
			return err
		}
		if ok {
			found++
		}
		if seen++; seen == probeRecords {
			break
		}
	}
	if found == 0 {
		return fmt.Errorf("it is empty, or its type %q holds nothing that is needed; use a City or Country database for dns.geoip, an ASN database for dns.asn",
			r.Metadata.DatabaseType)
	}
	for i := range uint32(probeRecords) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], i*(1<<32/probeRecords))
		if _, err := try(r.Lookup(netip.AddrFrom4(b)), useful); err != nil {
			return err
		}
	}
	return nil
}

// try decodes one record, if there is one, and tells whether there is something in it for us.
func try(res maxminddb.Result, useful func(*record) bool) (bool, error) {
	var rec record
	rec.blank()
	if err := res.Decode(&rec); err != nil {
		return false, fmt.Errorf("it is damaged, or its records have another shape than City and Country databases: %w", err)
	}
	return useful(&rec), nil
}
