package disk

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Ref is a record that Find told of.
type Ref struct {
	Hash, Variant, Born uint64
	id                  uint32
	file                File
	segment             uint32
	offset, size        int64
	head                int64
	bodyLen             int64
	bodySum             uint64
}

// BodySize is how long the record's body is.
func (r *Ref) BodySize() int64 { return r.bodyLen }

var (
	errBusy = errors.New("too many reads wait for the disk")
	errSlow = errors.New("the disk took too long")
)

// Find calls see with the heads of the records of a hash, newest first, until it says that it has seen enough. Heads are
// checked; one that is wrong is removed and not told of. The head is the callee's.
func (s *Store) Find(hash uint64, see func(r Ref, head []byte) (more bool)) error {
	for _, r := range s.refs(hash) {
		var head []byte
		err := s.patiently(func() (err error) {
			head, err = r.readHead()
			return err
		})
		switch {
		case errors.Is(err, errBusy), errors.Is(err, errSlow):
			return err
		case err != nil:
			s.broken(&r, err)
		case !see(r, head):
			return nil
		}
	}
	return nil
}

// Walk shows the head of every record that is there when it begins, and removes those that keep says no to, for good. It
// tells whether it came to the end: before stop was closed, and with a disk that answers.
func (s *Store) Walk(stop <-chan struct{}, keep func(r Ref, head []byte) bool) bool {
	s.mu.Lock()
	hashes := make([]uint64, 0, len(s.index.first))
	for h := range s.index.first {
		hashes = append(hashes, h)
	}
	s.mu.Unlock()
	for _, h := range hashes {
		select {
		case <-stop:
			return false
		default:
		}
		err := s.Find(h, func(r Ref, head []byte) bool {
			if !keep(r, head) {
				s.Remove(r.Hash, r.Variant)
			}
			return true
		})
		if err != nil {
			return false
		}
	}
	return true
}

func (s *Store) refs(hash uint64) (refs []Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.index.chain(hash) {
		e := &s.index.entries[id]
		for _, g := range s.segments {
			if g.id == e.segment {
				refs = append(refs, Ref{
					Hash: e.hash, Variant: e.variant, id: id, file: g.file, segment: g.id,
					offset: int64(e.offset) * align, size: int64(e.size) * align, head: int64(e.head),
				})
			}
		}
	}
	return refs
}

func (r *Ref) readHead() ([]byte, error) {
	b := make([]byte, prefixSize+r.head)
	if r.head > MaxHead || int64(len(b)) > r.size {
		return nil, errCorrupt
	}
	if _, err := r.file.ReadAt(b, r.offset); err != nil {
		return nil, err
	}
	p := decodePrefix(b)
	head := b[prefixSize:]
	if p.magic != magicPut || int64(p.head) != r.head || p.size() != r.size || p.hash != r.Hash || p.variant != r.Variant ||
		p.sum(r.segment, r.offset, head) != p.headSum {
		return nil, errCorrupt
	}
	r.Born, r.bodyLen, r.bodySum = p.born, int64(p.body), p.bodySum
	return head, nil
}

// Body reads a record's body into chunks of at most chunk bytes. What doesn't have its checksum is removed, and an error.
func (s *Store) Body(r Ref, chunk int64) ([][]byte, error) {
	var body [][]byte
	err := s.patiently(func() error {
		var read [][]byte
		at := r.offset + prefixSize + r.head
		for left := r.bodyLen; left > 0; {
			b := make([]byte, min(left, chunk))
			if _, err := r.file.ReadAt(b, at); err != nil {
				return err
			}
			read = append(read, b)
			at += int64(len(b))
			left -= int64(len(b))
		}
		if bodySum(read) != r.bodySum {
			return errCorrupt
		}
		body = read
		return nil
	})
	switch {
	case err == nil:
		return body, nil
	case !errors.Is(err, errBusy) && !errors.Is(err, errSlow):
		s.broken(&r, err)
	}
	return nil, fmt.Errorf("read a record of the cache on disk: %w", err)
}

// patiently runs a read, and gives it up when it takes too long: nobody's request may hang on a disk that does. do must
// not touch what its caller reads after an error.
func (s *Store) patiently(do func() error) error {
	if s.stuck.Load() > 0 {
		s.failed()
		return errSlow // until those that hang come back
	}
	select {
	case s.reads <- struct{}{}:
	default:
		s.failed()
		return errBusy
	}
	result := make(chan error, 1)
	go func() {
		defer func() { <-s.reads }()
		result <- do()
	}()
	timer := time.NewTimer(s.o.Patience)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
	}
	s.failed()
	s.stuck.Add(1)
	go func() { <-result; s.stuck.Add(-1) }()
	return errSlow
}

func (s *Store) failed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Failed++
}

// broken takes a record that can't be read out of the index. One whose segment has gone meanwhile is not broken.
func (s *Store) broken(r *Ref, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, os.ErrClosed) {
		return
	}
	if errors.Is(err, errCorrupt) {
		s.stats.Corrupt++
	} else {
		s.stats.Failed++
	}
	if int(r.id) < len(s.index.entries) {
		if e := &s.index.entries[r.id]; e.live && e.segment == r.segment && int64(e.offset)*align == r.offset {
			s.index.remove(r.id)
		}
	}
}
