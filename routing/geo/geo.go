package geo

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/oschwald/maxminddb-golang/v2"

	"landfall/routing"
)

// maxSize bounds the file, in bytes. The largest databases on sale are a third of it.
const maxSize = 1 << 30

// DB is an open database. All methods are safe for concurrent use, and a nil *DB is a database that finds nothing.
type DB struct {
	path   string
	useful func(*record) bool
	open   atomic.Pointer[content]

	mu     sync.Mutex  // serialises Reload and Close
	loaded fs.FileInfo // what the open reader was read from
}

// content is a database in memory, and the records that were asked for of late. Many networks share a record, and to decode
// one takes longer than to find it.
type content struct {
	*maxminddb.Reader
	recent [recentRecords]atomic.Pointer[found]
}

// recentRecords bounds the records that are kept decoded, about a megabyte of them. A power of two.
const recentRecords = 1 << 14

// found is a decoded record. It is immutable.
type found struct {
	offset  uintptr
	point   routing.Point
	country string
	as      uint32
}

// decode is the record of a result that was found; nil when it can't be read.
func (c *content) decode(res maxminddb.Result) *found {
	const spread = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio: neighbours land far apart (Knuth, volume 3, 6.4)
	slot := &c.recent[uint64(res.Offset())*spread>>32%recentRecords]
	if f := slot.Load(); f != nil && f.offset == res.Offset() {
		return f
	}
	var r record
	r.blank()
	if res.Decode(&r) != nil {
		return nil
	}
	f := &found{res.Offset(), r.point(), r.country(), r.AS}
	slot.Store(f)
	return f
}

// Place is what is known of an address.
type Place struct {
	Point   routing.Point // Located false when the record has no coordinates, as in Country databases
	Country string        // ISO 3166-1 alpha-2 in upper case, or empty
	// Network is the largest prefix around the address for which the answer is the same. It is set when the address is
	// not found, too, as the gap around it; it is the zero Prefix when the database can't hold the address's family.
	Network netip.Prefix
}

// record is the part of a record that we read. Fields that are absent keep the values of blank.
type record struct {
	Country struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	Location struct {
		Latitude  float64 `maxminddb:"latitude"`
		Longitude float64 `maxminddb:"longitude"`
	} `maxminddb:"location"`
	AS uint32 `maxminddb:"autonomous_system_number"`
}

// blank empties r. NaN tells absent coordinates from 0, 0.
func (r *record) blank() {
	r.Country.ISOCode, r.AS = "", 0
	r.Location.Latitude, r.Location.Longitude = math.NaN(), math.NaN()
}

func (r *record) point() routing.Point {
	lat, lon := r.Location.Latitude, r.Location.Longitude
	// NaN fails both comparisons.
	if !(math.Abs(lat) <= 90 && math.Abs(lon) <= 180) {
		return routing.Point{}
	}
	return routing.Point{Lat: lat, Lon: lon, Located: true}
}

// country is the record's country if it is one: it ends up in a request header, so nothing else may pass.
func (r *record) country() string {
	c := r.Country.ISOCode
	if len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' {
		return ""
	}
	return c
}

// Open reads the database at path into memory. The error says what is wrong with the file and what to use instead.
func Open(path string) (*DB, error) {
	return open(path, func(r *record) bool { return r.point().Located || r.country() != "" })
}

// OpenASN reads a database of autonomous systems (GeoLite2 ASN or one of its shape, key autonomous_system_number).
func OpenASN(path string) (*DB, error) { return open(path, func(r *record) bool { return r.AS != 0 }) }

func open(path string, useful func(*record) bool) (*DB, error) {
	d := &DB{path: path, useful: useful}
	if err := d.Reload(); err != nil {
		return nil, err
	}
	return d, nil
}

// ASN is the number of the autonomous system that a is in, or 0.
func (d *DB) ASN(a netip.Addr) uint32 {
	if d == nil || !a.IsValid() {
		return 0
	}
	reader := d.open.Load()
	if reader == nil {
		return 0
	}
	res := reader.Lookup(a.Unmap().WithZone(""))
	if res.Err() != nil || !res.Found() {
		return 0
	}
	f := reader.decode(res)
	if f == nil {
		return 0
	}
	return f.as
}

// Lookup finds a. IPv4-mapped IPv6 addresses count as IPv4. The bool tells whether the database has a record with a
// point or a country; Place.Network is set without one, too.
func (d *DB) Lookup(a netip.Addr) (Place, bool) {
	if d == nil {
		return Place{}, false
	}
	reader := d.open.Load()
	if reader == nil || !a.IsValid() {
		return Place{}, false
	}
	a = a.Unmap().WithZone("")
	res := reader.Lookup(a)
	if res.Err() != nil {
		return Place{}, false
	}
	p := Place{Network: network(a, res)}
	if !res.Found() {
		return p, false
	}
	f := reader.decode(res)
	if f == nil {
		return p, false
	}
	p.Point, p.Country = f.point, f.country
	return p, p.Point.Located || p.Country != ""
}

// network is the prefix that res holds for. An IPv6 database without an IPv4 part answers an IPv4 address with an IPv6
// prefix; what it says then is the same for all of IPv4.
func network(a netip.Addr, res maxminddb.Result) netip.Prefix {
	p := res.Prefix()
	if p.Addr().Is4() == a.Is4() {
		return p
	}
	all, _ := a.Prefix(0)
	return all
}

// Reload reads the file again if it changed since it was last read (another file, size or modification time). When that
// fails the old database stays in use and the error says why; the next Reload tries again. A nil *DB has nothing to
// reload.
func (d *DB) Reload() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("geo database can't be opened, check dns.geoip: %w", err)
	}
	defer f.Close()
	// The stamp is taken before the read: a writer that is faster than we are is seen by the next Reload.
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("geo database %s can't be read: %w", d.path, err)
	}
	if d.open.Load() != nil && same(d.loaded, info) {
		return nil
	}
	reader, err := read(f, info, d.useful)
	if err != nil {
		return fmt.Errorf("geo database %s can't be used: %w", d.path, err)
	}
	d.open.Store(&content{Reader: reader})
	d.loaded = info
	return nil
}

func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// read loads the file into memory. It is not mapped: a file that is truncated in place would kill the process, and a
// reader may still be in use by a request when it is replaced.
func read(f *os.File, info fs.FileInfo, useful func(*record) bool) (*maxminddb.Reader, error) {
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is no regular file")
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("it has %d bytes, more than the %d that fit", info.Size(), maxSize)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("it changed while it was read, or the disk fails: %w", err)
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("it is no MaxMind database (.mmdb), or is cut short: %w", err)
	}
	if err := probe(reader, useful); err != nil {
		return nil, err
	}
	return reader, nil
}

// Close drops the database; Lookup finds nothing from then on.
func (d *DB) Close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// The reader holds nothing but memory, and lookups may be using it: the garbage collector closes it.
	d.open.Store(nil)
	return nil
}
