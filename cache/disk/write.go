package disk

import (
	"errors"
	"path/filepath"
	"time"
)

// Put queues a record. It is found once it is written; an older one of its variant is not found any more. false: it will
// not be written, and the older one is gone for good all the same.
func (s *Store) Put(r Record) bool {
	p := r.prefix()
	was := s.forget(r.Hash, r.Variant)
	if len(r.Head) <= MaxHead && p.size() <= s.segSize && s.queue.put(r, p.size(), was) {
		return true
	}
	if was {
		s.queue.drop(r.Hash, r.Variant, true)
	}
	s.Remove(r.Hash, r.Variant)
	return false
}

func (r *Record) prefix() prefix {
	p := prefix{magic: magicPut, head: uint32(len(r.Head)), hash: r.Hash, variant: r.Variant, born: r.Born}
	for _, chunk := range r.Body {
		p.body += uint64(len(chunk))
	}
	return p
}

func (s *Store) forget(hash, variant uint64) (was bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, was := s.index.find(hash, variant)
	if was {
		s.index.remove(id)
	}
	return was
}

// Flush waits until what is queued now is written or given up; false: stop was closed before.
func (s *Store) Flush(stop <-chan struct{}) bool {
	select {
	case <-s.queue.flush():
		return true
	case <-stop:
		return false
	}
}

// write does what is queued, until the queue is closed and empty.
func (s *Store) write() {
	defer close(s.done)
	var failedAt time.Time
	down := false
	for {
		if s.queue.overflowed() {
			s.Clear()
		}
		s.discard()
		j, ok, closed := s.queue.take()
		if closed {
			s.finish()
			return
		}
		if !ok {
			<-s.queue.changed
			continue
		}
		if j.flush != nil {
			close(j.flush)
			continue
		}
		if down && s.o.Now().Sub(failedAt) < retryAfter {
			s.lost(j)
			continue
		}
		err := s.settle()
		if err == nil {
			err = s.do(j)
		}
		if err != nil {
			failedAt = s.o.Now()
			s.lost(j)
		} else {
			s.queue.written(j)
		}
		if (err != nil) != down {
			down = err != nil
			s.mu.Lock()
			s.stats.Down = down
			s.mu.Unlock()
			if s.o.OnState != nil {
				s.o.OnState(err)
			}
		}
	}
}

// lost gives up a job. What it was to remove, or to take the place of, must not be there after a restart: it is owed.
func (s *Store) lost(j job) {
	s.queue.written(j)
	switch {
	case !j.drop && !j.replaces:
	case len(s.owed) < maxOwed:
		s.owed[j.name()] = struct{}{}
	default:
		s.owesAll = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !j.drop {
		s.stats.Dropped++
	}
}

// settle removes what is owed, before anything newer is written.
func (s *Store) settle() error {
	if s.owesAll {
		s.Clear()
		s.discard()
		clear(s.owed)
		s.owesAll = false
	}
	for n := range s.owed {
		if err := s.do(job{drop: true, Record: Record{Hash: n.hash, Variant: n.variant}}); err != nil {
			return err
		}
		delete(s.owed, n)
	}
	return nil
}

// do writes one job. A disk that is full gets one more chance without the oldest segment.
func (s *Store) do(j job) error {
	err := s.append(j)
	if err == nil || errors.Is(err, errCleared) {
		return nil
	}
	s.mu.Lock()
	again := len(s.segments) > 1
	if again {
		s.dropOldest()
	}
	s.mu.Unlock()
	if !again {
		return err
	}
	s.discard()
	return s.append(j)
}

func (s *Store) append(j job) error {
	p := j.prefix()
	if j.drop {
		p = prefix{magic: magicDrop, hash: j.Hash, variant: j.Variant}
	} else {
		p.bodySum = bodySum(j.Body)
	}
	g, epoch, err := s.segmentFor(p.size())
	if err != nil {
		return err
	}
	at := g.size // only this goroutine moves it
	p.headSum = p.sum(g.id, at, j.Head)
	b := make([]byte, prefixSize, prefixSize+len(j.Head))
	p.encode(b)
	b = append(b, j.Head...)
	// The body first: until its begin is there, the record is not.
	offset := at + int64(len(b))
	for _, chunk := range j.Body {
		if _, err := g.file.WriteAt(chunk, offset); err != nil {
			return s.giveUp(g, err)
		}
		offset += int64(len(chunk))
	}
	if pad := at + p.size() - offset; pad > 0 {
		if _, err := g.file.WriteAt(make([]byte, pad), offset); err != nil {
			return s.giveUp(g, err)
		}
	}
	if _, err := g.file.WriteAt(b, at); err != nil {
		return s.giveUp(g, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch {
		return nil
	}
	l := p.listed(at)
	g.log = append(g.log, l)
	g.size += p.size()
	s.bytes += p.size()
	if !j.drop {
		s.stats.Written++
	}
	s.apply(g, l)
	s.account()
	for s.bytes > s.o.Size && len(s.segments) > 1 {
		s.dropOldest()
	}
	return nil
}

// giveUp leaves a segment that can't be written as it is: what is whole in it stays, and a start reads up to what is torn.
func (s *Store) giveUp(g *segment, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == g {
		s.current = nil
	}
	return err
}

// segmentFor is the segment that a record goes to: the one being written, or a new one.
func (s *Store) segmentFor(size int64) (g *segment, epoch uint64, err error) {
	s.mu.Lock()
	g, epoch = s.current, s.epoch
	id := s.nextID
	s.mu.Unlock()
	if g != nil && g.size+size <= s.segSize {
		return g, epoch, nil
	}
	if g != nil {
		s.seal(g)
	}
	f, err := s.o.FS.Create(filepath.Join(s.o.Dir, segmentName(id)))
	if err != nil {
		return nil, 0, err
	}
	g = &segment{id: id, file: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	if s.epoch != epoch {
		s.trash = append(s.trash, g)
		return nil, 0, errCleared
	}
	s.segments = append(s.segments, g)
	s.current = g
	return g, epoch, nil
}

var errCleared = errors.New("everything was removed meanwhile")

// seal ends the segment that was written. Without its list, which a full disk may refuse, the next start reads it whole.
func (s *Store) seal(g *segment) {
	_ = s.writeList(g)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.log = nil
	if s.current == g {
		s.current = nil
	}
}

// finish makes the next start quick.
func (s *Store) finish() {
	_ = s.settle() // a disk that still fails keeps what is owed to it
	s.mu.Lock()
	g := s.current
	s.mu.Unlock()
	if g != nil {
		s.seal(g)
	}
}
