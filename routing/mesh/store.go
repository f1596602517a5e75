package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// storeName is the file in the data folder.
const storeName = "registers.db"

// storeLockWait is how long New waits for another process to let go of the file.
const storeLockWait = time.Second

// store keeps the registers and the last known peers in a bbolt file. Each change is on disk (fsync) when the call
// returns. A store is for one caller at a time for writes; bbolt itself serialises them.
type store struct{ db *bolt.DB }

// knownPeer is where a node was last seen.
type knownPeer struct {
	Gossip string    `json:"gossip"`
	Seen   time.Time `json:"seen"`
}

// saved is what a store held when it was opened.
type saved struct {
	registers []Register
	peers     map[string]knownPeer
	alive     time.Time // when this node last knew what the fleet knew; zero: never said
	skipped   int       // records that could not be understood
	aside     string    // where a corrupt file was moved; empty: there was none
	cause     error     // why it counts as corrupt
}

func registersBucket() []byte { return []byte("registers") }
func peersBucket() []byte     { return []byte("peers") }
func selfBucket() []byte      { return []byte("self") }

// openStore opens the file in dir, creating both where absent. A file that bbolt can't read is renamed and a new one
// begun: the peers hold the registers too. A folder that can't be written or a file in use is an error.
func openStore(dir string, now time.Time) (*store, saved, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, saved{}, fmt.Errorf("mesh: the data folder %s can't be made; choose a folder that this user may write: %w", dir, err)
	}
	path := filepath.Join(dir, storeName)
	db, held, err := openFile(path)
	if err == nil {
		return &store{db}, held, nil
	}
	if !corrupt(err) {
		return nil, saved{}, explainOpen(path, err)
	}
	aside := path + ".corrupt-" + now.UTC().Format("20060102T150405.000")
	if rerr := os.Rename(path, aside); rerr != nil {
		return nil, saved{}, fmt.Errorf("mesh: %s is corrupt (%w) and can't be moved aside: %w", path, err, rerr)
	}
	db, held, again := openFile(path)
	if again != nil {
		return nil, saved{}, explainOpen(path, again)
	}
	held.aside, held.cause = aside, err
	return &store{db}, held, nil
}

func explainOpen(path string, err error) error {
	if errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("mesh: %s is in use by another process; give each node a data folder of its own", path)
	}
	return fmt.Errorf("mesh: %s can't be opened; check that this user may write it: %w", path, err)
}

// corrupt tells a damaged file from one that can't be reached.
func corrupt(err error) bool {
	var errno syscall.Errno
	var perr *fs.PathError
	return !errors.Is(err, berrors.ErrTimeout) && !errors.As(err, &errno) && !errors.As(err, &perr)
}

// openFile opens and reads one file. bbolt panics on some damage, and touching a page beyond a truncated file is a
// fault: both become errors here.
func openFile(path string) (db *bolt.DB, held saved, err error) {
	var file *os.File
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is damaged: %v", p)
		}
		if err != nil && file != nil {
			_ = file.Close() // lets go of the lock, also where bbolt gave no handle to close
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout:      storeLockWait,
		NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, ferr := os.OpenFile(name, flag, mode)
			file = f
			return f, ferr
		},
	})
	if err != nil {
		return nil, saved{}, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		registers, terr := tx.CreateBucketIfNotExists(registersBucket())
		if terr != nil {
			return terr
		}
		peers, terr := tx.CreateBucketIfNotExists(peersBucket())
		if terr != nil {
			return terr
		}
		self, terr := tx.CreateBucketIfNotExists(selfBucket())
		if terr != nil {
			return terr
		}
		held.alive, _ = time.Parse(time.RFC3339, string(self.Get([]byte("alive")))) // absent: never said
		return held.read(registers, peers)
	})
	if err != nil {
		_ = db.Close()
	}
	return db, held, err
}

func (h *saved) read(registers, peers *bolt.Bucket) error {
	h.peers = map[string]knownPeer{}
	err := registers.ForEach(func(key, value []byte) error {
		var r Register
		jerr := json.Unmarshal(value, &r)
		r, cerr := r.canonical()
		if jerr != nil || cerr != nil || r.Key != string(key) || len(h.registers) >= MaxRegisters {
			h.skipped++
			return nil
		}
		h.registers = append(h.registers, r)
		return nil
	})
	if err != nil {
		return err
	}
	return peers.ForEach(func(name, value []byte) error {
		var p knownPeer
		if json.Unmarshal(value, &p) != nil || !validName(string(name)) || len(h.peers) >= MaxMembers {
			h.skipped++
			return nil
		}
		h.peers[string(name)] = p
		return nil
	})
}

// update runs one durable transaction. Damage that bbolt finds only now becomes an error, not a crash.
func (s *store) update(f func(*bolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	return s.db.Update(f)
}

// save writes registers.
func (s *store) save(rs []Register) error {
	err := s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(registersBucket())
		for _, r := range rs {
			if err := b.Put([]byte(r.Key), encode(r)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s can't be written: %w", s.db.Path(), err)
	}
	return nil
}

// wipe removes all registers.
func (s *store) wipe() error {
	return s.update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket(registersBucket()); err != nil {
			return err
		}
		_, err := tx.CreateBucket(registersBucket())
		return err
	})
}

// markAlive writes down that this node knows what the fleet knows at this time.
func (s *store) markAlive(now time.Time) error {
	return s.update(func(tx *bolt.Tx) error {
		return tx.Bucket(selfBucket()).Put([]byte("alive"), now.AppendFormat(nil, time.RFC3339))
	})
}

// forget removes registers.
func (s *store) forget(keys []string) error {
	return s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(registersBucket())
		for _, key := range keys {
			if err := b.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
}

// savePeers replaces the list of last known peers.
func (s *store) savePeers(peers map[string]knownPeer) error {
	return s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(peersBucket())
		var gone [][]byte
		err := b.ForEach(func(name, _ []byte) error {
			if _, ok := peers[string(name)]; !ok {
				gone = append(gone, slices.Clone(name))
			}
			return nil
		})
		for _, name := range gone {
			err = errors.Join(err, b.Delete(name))
		}
		for name, p := range peers {
			err = errors.Join(err, b.Put([]byte(name), encode(p)))
		}
		return err
	})
}

func (s *store) close() error { return s.db.Close() }
