package dns

import (
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"hash/maphash"
	"math/big"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	// signEvery is how long a signature is given out, and signFor how long it is valid from its making: resolvers keep it
	// for a TTL, and clocks differ. Both count from a moment that all nodes share, so that they sign alike.
	signEvery = 24 * time.Hour
	signFor   = 7 * 24 * time.Hour
	signSkew  = time.Hour // for resolvers whose clocks run late

	signatureSize = 64 // bytes (RFC 6605 §4)
)

// signatures remembers signatures, by what they sign. When half of its room is new, the other half is dropped.
type signatures struct {
	seed   maphash.Seed
	shards [signShards]signShard
}

const (
	signShards = 16
	// signRoom is the signatures of each half of a shard: 64 Ki in all, about 20 MB. A flood of names costs signing, not
	// memory.
	signRoom = 2048
)

type signShard struct {
	mu       sync.Mutex
	new, old map[string][signatureSize]byte
}

func newSignatures() *signatures {
	c := &signatures{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].new = map[string][signatureSize]byte{}
	}
	return c
}

func (c *signatures) shard(signed []byte) *signShard {
	return &c.shards[maphash.Bytes(c.seed, signed)%signShards]
}

func (s *signShard) get(signed []byte) ([signatureSize]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sig, ok := s.new[string(signed)]; ok {
		return sig, true
	}
	sig, ok := s.old[string(signed)]
	if ok {
		s.keep(signed, sig)
	}
	return sig, ok
}

func (s *signShard) put(signed []byte, sig [signatureSize]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(signed, sig)
}

func (s *signShard) keep(signed []byte, sig [signatureSize]byte) {
	if len(s.new) >= signRoom {
		s.old, s.new = s.new, make(map[string][signatureSize]byte, signRoom)
	}
	s.new[string(signed)] = sig
}

// signers calls sign with each key that signs sets of a type now. When the last key that may sign the keys has become
// inactive, those that are still published sign on: a key that is used for too long harms less than a zone that every
// validating resolver calls bogus.
func (z *zone) signers(rtype uint16, now time.Time, sign func(*Key)) {
	keySet := rtype == mdns.TypeDNSKEY || rtype == mdns.TypeCDS || rtype == mdns.TypeCDNSKEY
	ksk, zsk := false, false
	for _, k := range z.keys {
		ksk = ksk || k.sep && k.active(now)
		zsk = zsk || !k.sep && k.active(now)
	}
	for _, k := range z.keys {
		signs := k.active(now) || k.sep && !ksk && k.published(now) && !now.Before(k.activate)
		if signs && k.sep == (keySet || !zsk) {
			sign(k)
		}
	}
}

// sign writes the signatures of a set behind it (RFC 4034 §3). It returns how many.
func (s *Server) sign(w *writer, st *set) (records uint16) {
	now := s.now()
	begin := now.Truncate(signEvery)
	from, until := uint32(begin.Add(-signSkew).Unix()), uint32(begin.Add(signFor).Unix())
	st.zone.signers(st.rtype, now, func(k *Key) {
		var room [1024]byte
		signed := appendSignedHead(room[:0], st, k, from, until)
		head := len(signed)
		signed = st.appendSigned(signed, w.serial)
		sig, ok := s.signature(signed, k)
		if !ok {
			return
		}
		w.owner(st.owner)
		w.head(mdns.TypeRRSIG, st.ttl)
		w.u16(uint16(head + signatureSize))
		w.buf = append(append(w.buf, signed[:head]...), sig[:]...)
		records++
	})
	return records
}

// appendSignedHead appends an RRSIG's data without the signature.
func appendSignedHead(dst []byte, st *set, k *Key, from, until uint32) []byte {
	labels := st.owner.nLabels
	if labels > 0 && st.owner.wire[0] == 1 && st.owner.wire[1] == '*' {
		labels-- // §3.1.3
	}
	dst = append(dst, byte(st.rtype>>8), byte(st.rtype), mdns.ECDSAP256SHA256, byte(labels))
	dst = binary.BigEndian.AppendUint32(dst, st.ttl)
	dst = binary.BigEndian.AppendUint32(dst, until)
	dst = binary.BigEndian.AppendUint32(dst, from)
	dst = binary.BigEndian.AppendUint16(dst, k.tag)
	return append(dst, st.zone.apex.bytes()...)
}

// signature signs, or remembers. What is signed names the key by its tag and the zone; two keys of a zone with one tag
// would share signatures, which is why LoadKeys takes the tag from the file and files of one name can't exist twice.
func (s *Server) signature(signed []byte, k *Key) (sig [signatureSize]byte, ok bool) {
	shard := s.signatures.shard(signed)
	if sig, ok = shard.get(signed); ok {
		return sig, true
	}
	digest := sha256.Sum256(signed)
	// Without randomness of its own: deterministic (RFC 6979), the same on every node.
	der, err := k.private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return s.signFailed(err)
	}
	var point struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &point); err != nil {
		return s.signFailed(err)
	}
	point.R.FillBytes(sig[:signatureSize/2])
	point.S.FillBytes(sig[signatureSize/2:])
	s.metrics.signatures.Inc()
	shard.put(signed, sig)
	return sig, true
}

func (s *Server) signFailed(err error) (sig [signatureSize]byte, ok bool) {
	s.log.Error("dns can't sign an answer", "error", err)
	return sig, false
}
