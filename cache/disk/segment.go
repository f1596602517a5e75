package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// segment is a file of records.
type segment struct {
	id   uint32
	file File
	size int64    // of whole records
	ids  []uint32 // entries in it, some of which may be of other segments by now
	log  []listed // what was written to it, for its list
}

// listed is a record as the list beside a segment has it.
type listed struct {
	hash, variant, born uint64
	offset, size, head  uint32 // offset and size in units of align; size 0: a removal
}

const (
	listedSize = 36
	listMagic  = "landfall-list-1\n"
)

func segmentName(id uint32) string { return fmt.Sprintf("%08x.seg", id) }
func listName(id uint32) string    { return fmt.Sprintf("%08x.lst", id) }

// segmentID reads the number out of a file's name.
func segmentID(name, suffix string) (uint32, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return uint32(n), err == nil
}

// writeList writes what a full segment holds beside it.
func (s *Store) writeList(g *segment) error {
	b := make([]byte, 0, len(listMagic)+16+len(g.log)*listedSize)
	b = append(b, listMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(g.size))
	for _, l := range g.log {
		b = binary.LittleEndian.AppendUint64(b, l.hash)
		b = binary.LittleEndian.AppendUint64(b, l.variant)
		b = binary.LittleEndian.AppendUint64(b, l.born)
		b = binary.LittleEndian.AppendUint32(b, l.offset)
		b = binary.LittleEndian.AppendUint32(b, l.size)
		b = binary.LittleEndian.AppendUint32(b, l.head)
	}
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
	f, err := s.o.FS.Create(filepath.Join(s.o.Dir, listName(g.id)))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

// parseList reads a list; ok is false for one that is not whole.
func parseList(b []byte) (size int64, list []listed, ok bool) {
	rest, magic := strings.CutPrefix(string(b[:min(len(b), len(listMagic))]), listMagic)
	if !magic || rest != "" || len(b) < len(listMagic)+16 || (len(b)-len(listMagic)-16)%listedSize != 0 {
		return 0, nil, false
	}
	end := len(b) - 8
	if xxhash.Sum64(b[:end]) != binary.LittleEndian.Uint64(b[end:]) {
		return 0, nil, false
	}
	b = b[len(listMagic):end]
	size, b = int64(binary.LittleEndian.Uint64(b)), b[8:]
	for ; len(b) > 0; b = b[listedSize:] {
		list = append(list, listed{
			hash: binary.LittleEndian.Uint64(b), variant: binary.LittleEndian.Uint64(b[8:]), born: binary.LittleEndian.Uint64(b[16:]),
			offset: binary.LittleEndian.Uint32(b[24:]), size: binary.LittleEndian.Uint32(b[28:]), head: binary.LittleEndian.Uint32(b[32:]),
		})
	}
	return size, list, true
}

// readList reads the list beside a segment, if there is a whole one.
func (s *Store) readList(id uint32, most int64) (list []listed, ok bool) {
	f, err := s.o.FS.Open(filepath.Join(s.o.Dir, listName(id)))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil || n > most {
		return nil, false
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, false
	}
	_, list, ok = parseList(b)
	return list, ok
}

// scan reads a segment record by record, up to the first that is not whole, and returns where that is. Bodies are not
// checked: that is done when they are read.
func scan(f io.ReaderAt, id uint32, size int64) (list []listed, end int64) {
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 256<<10)
	var b [prefixSize]byte
	head := make([]byte, 0, 4096)
	for end+prefixSize <= size {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return list, end
		}
		p := decodePrefix(b[:])
		if !p.plausible(size - end) {
			return list, end
		}
		head = append(head[:0], make([]byte, p.head)...)
		if _, err := io.ReadFull(r, head); err != nil || p.sum(id, end, head) != p.headSum {
			return list, end
		}
		if _, err := r.Discard(int(p.size()) - prefixSize - int(p.head)); err != nil {
			return list, end
		}
		list = append(list, p.listed(end))
		end += p.size()
	}
	return list, end
}

func (p *prefix) listed(offset int64) listed {
	l := listed{hash: p.hash, variant: p.variant, born: p.born, offset: uint32(offset / align), size: uint32(p.size() / align), head: p.head}
	if p.magic == magicDrop {
		l.size = 0
	}
	return l
}
