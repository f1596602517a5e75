package dns

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// Key is one key of a zone: ECDSA P-256 (algorithm 13, RFC 6605). A key with the SEP flag (a KSK) signs the DNSKEY set,
// and everything when no other key does; one without (a ZSK) signs the rest.
type Key struct {
	File string // where it came from, without .private

	sep     bool
	tag     uint16
	data    []byte // of the DNSKEY record
	private *ecdsa.PrivateKey

	// When it is in the DNSKEY set, and when it signs; zero: no bound on that side.
	publish, activate, inactive, remove time.Time
	// When the parent is asked to have a DS record of it (RFC 7344); zero: while it signs.
	syncPublish, syncDelete time.Time
}

// Tag is the key's tag, as it stands in file names and DS records.
func (k *Key) Tag() uint16 { return k.tag }

func (k *Key) published(now time.Time) bool {
	return !now.Before(k.publish) && (k.remove.IsZero() || now.Before(k.remove))
}

// active tells whether the key signs. A key that nobody can know of does not.
func (k *Key) active(now time.Time) bool {
	return k.published(now) && !now.Before(k.activate) && (k.inactive.IsZero() || now.Before(k.inactive))
}

// delegated tells whether the parent should have the key's DS record. A new key's has to be there before the old one's
// signatures go, so whoever rolls without a time in which both sign says so by SyncPublish and SyncDelete.
func (k *Key) delegated(now time.Time) bool {
	if !k.sep || !k.published(now) || !k.syncDelete.IsZero() && !now.Before(k.syncDelete) {
		return false
	}
	if k.syncPublish.IsZero() {
		return k.active(now)
	}
	return !now.Before(k.syncPublish)
}

// maxKeys bounds a zone's keys: a DNSKEY set that does not fit a UDP answer costs every resolver a connection.
const maxKeys = 8

// LoadKeys reads a zone's keys from a folder: K<zone>.+013+<tag>.key and .private, as dnssec-keygen writes them. Other
// files are left alone. The error says what is wrong with which file, or that no key may sign at the time now.
func LoadKeys(dir, zone string, now time.Time) ([]*Key, error) {
	origin := mdns.CanonicalName(zone)
	files, err := filepath.Glob(filepath.Join(dir, "K"+origin+"+013+*.private"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no keys for %s in %s: make one with dnssec-keygen -K %s -a ECDSAP256SHA256 -f KSK %s", zone, dir, dir, zone)
	}
	if len(files) > maxKeys {
		return nil, fmt.Errorf("%d keys for %s in %s: at most %d; take away those that are past their Delete time", len(files), zone, dir, maxKeys)
	}
	var keys []*Key
	signs := false
	for _, f := range files {
		k, err := loadKey(strings.TrimSuffix(f, ".private"), origin)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
		signs = signs || k.active(now) && k.sep
	}
	if !signs {
		return nil, fmt.Errorf("no key in %s may sign the keys of %s now: make one with dnssec-keygen -f KSK, or correct its Activate time by dnssec-settime", dir, zone)
	}
	return keys, nil
}

func loadKey(base, origin string) (*Key, error) {
	public, err := os.ReadFile(base + ".key")
	if err != nil {
		return nil, fmt.Errorf("read a zone's key: %w", err)
	}
	rr, err := mdns.NewRR(string(public))
	if err != nil {
		return nil, fmt.Errorf("%s.key holds no DNSKEY record: %w", base, err)
	}
	key, ok := rr.(*mdns.DNSKEY)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s.key holds no DNSKEY record", base)
	case mdns.CanonicalName(key.Hdr.Name) != origin:
		return nil, fmt.Errorf("%s.key is a key of %s, not of %s", base, key.Hdr.Name, origin)
	case key.Algorithm != mdns.ECDSAP256SHA256 || key.Protocol != 3 || key.Flags&^1 != mdns.ZONE:
		return nil, fmt.Errorf("%s.key is no ECDSA P-256 zone key (flags 256 or 257, algorithm 13)", base)
	}
	text, err := os.ReadFile(base + ".private")
	if err != nil {
		return nil, fmt.Errorf("read a zone's key: %w", err)
	}
	private, err := key.ReadPrivateKey(strings.NewReader(string(text)), base+".private")
	if err != nil {
		return nil, fmt.Errorf("%s.private can't be read: %w", base, err)
	}
	ec, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s.private holds no ECDSA key", base)
	}
	r, err := record4034(key)
	if err != nil {
		return nil, fmt.Errorf("%s.key: %w", base, err)
	}
	if pub, err := ec.PublicKey.Bytes(); err != nil || string(pub[1:]) != string(r[4:]) {
		return nil, fmt.Errorf("%s.private and .key do not belong together", base)
	}
	k := &Key{File: base, sep: key.Flags&mdns.SEP != 0, tag: key.KeyTag(), data: r, private: ec}
	return k, k.times(string(text))
}

// record4034 is the data of a DNSKEY record (RFC 4034 §2.1).
func record4034(key *mdns.DNSKEY) ([]byte, error) {
	buf := make([]byte, 1024)
	end, err := mdns.PackRR(key, buf, 0, nil, false)
	if err != nil {
		return nil, err
	}
	_, off, err := mdns.UnpackDomainName(buf, 0)
	if err != nil || off+14 > end {
		return nil, fmt.Errorf("no DNSKEY data")
	}
	return buf[off+10 : end], nil
}

// times reads the timing metadata of a .private file: UTC, as in Activate: 20260131120000.
func (k *Key) times(text string) error {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		at := map[string]*time.Time{
			"Publish": &k.publish, "Activate": &k.activate, "Inactive": &k.inactive, "Delete": &k.remove,
			"SyncPublish": &k.syncPublish, "SyncDelete": &k.syncDelete,
		}[name]
		if at == nil {
			continue
		}
		t, err := time.Parse("20060102150405", strings.TrimSpace(value))
		if err != nil {
			return fmt.Errorf("%s.private: %s is no time such as 20260131120000", k.File, name)
		}
		*at = t
	}
	return nil
}

// keySet is a set of the apex that is made of the keys: DNSKEY, CDS or CDNSKEY (RFC 7344), or nil when there is none. The
// last two name the keys that the parent's DS records should point at.
func (z *zone) keySet(rtype uint16, now time.Time) *rrset {
	s := &rrset{rtype: rtype, ttl: keyTTL}
	for _, k := range z.keys {
		data := k.data
		switch {
		case rtype == mdns.TypeDNSKEY && !k.published(now), rtype != mdns.TypeDNSKEY && !k.delegated(now):
			continue
		case rtype == mdns.TypeCDS:
			digest := sha256.Sum256(append(append([]byte(nil), z.apex.bytes()...), k.data...))
			data = binary.BigEndian.AppendUint16(nil, k.tag)
			data = append(append(data, mdns.ECDSAP256SHA256, mdns.SHA256), digest[:]...)
		}
		_ = s.add(data) // fails for names only
	}
	if len(s.data) == 0 {
		return nil
	}
	return s
}

// keyTTL is the TTL of the key sets, in seconds: how long a rollover has to wait between its steps.
const keyTTL = 3600

// DS returns the DS records that the zone's parent should hold for keys, in master-file form.
func DS(zone string, keys []*Key, now time.Time) []string {
	var out []string
	for _, k := range keys {
		if !k.delegated(now) {
			continue
		}
		apex, err := parseName(zone)
		if err != nil {
			continue
		}
		digest := sha256.Sum256(append(append([]byte(nil), apex.bytes()...), k.data...))
		out = append(out, fmt.Sprintf("%s IN DS %d 13 2 %X", mdns.CanonicalName(zone), k.tag, digest))
	}
	return out
}
