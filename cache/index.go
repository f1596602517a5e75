package cache

import (
	"iter"
	"sync/atomic"
)

const minBuckets = 16

// index is a shard's hash table: objects in chains, newest first, so that it takes one word an object. Changes are made
// under the shard's lock; reading takes none. A reader that meets a growing index may overlook an object, never see a
// wrong one: the hash and the key are the object's own.
type index struct {
	buckets atomic.Pointer[[]atomic.Pointer[object]] // nil: empty
	objects int                                      // guarded by the shard's lock
}

func bucketOf(buckets []atomic.Pointer[object], hash uint64) *atomic.Pointer[object] {
	return &buckets[hash/shardCount%uint64(len(buckets))]
}

// first is the begin of the chain in which objects with a hash are.
func (x *index) first(hash uint64) *object {
	buckets := x.buckets.Load()
	if buckets == nil {
		return nil
	}
	return bucketOf(*buckets, hash).Load()
}

// all are the objects with a hash, newest first.
func (x *index) all(hash uint64) iter.Seq[*object] {
	return func(yield func(*object) bool) {
		for o := x.first(hash); o != nil; o = o.chain.Load() {
			if o.hash == hash && !yield(o) {
				return
			}
		}
	}
}

// find is the newest object with a hash of which is says so; nil if there is none.
func (x *index) find(hash uint64, is func(*object) bool) *object {
	for o := range x.all(hash) {
		if is(o) {
			return o
		}
	}
	return nil
}

// everything is all objects, in no order.
func (x *index) everything() iter.Seq[*object] {
	return func(yield func(*object) bool) {
		buckets := x.buckets.Load()
		if buckets == nil {
			return
		}
		for i := range *buckets {
			for o := (*buckets)[i].Load(); o != nil; o = o.chain.Load() {
				if !yield(o) {
					return
				}
			}
		}
	}
}

// add puts an object before those of its hash.
func (x *index) add(o *object) {
	buckets := x.buckets.Load()
	if buckets == nil {
		x.resize(minBuckets)
	} else if x.objects >= len(*buckets) {
		x.resize(2 * len(*buckets))
	}
	x.objects++
	push(*x.buckets.Load(), o)
}

func push(buckets []atomic.Pointer[object], o *object) {
	b := bucketOf(buckets, o.hash)
	o.chain.Store(b.Load())
	b.Store(o)
}

// remove takes an object out, and tells whether it was in.
func (x *index) remove(o *object) bool {
	buckets := x.buckets.Load()
	if buckets == nil {
		return false
	}
	for at := bucketOf(*buckets, o.hash); ; {
		next := at.Load()
		if next == nil {
			return false
		}
		if next == o {
			at.Store(o.chain.Load()) // o keeps its own place, for readers who are at it
			break
		}
		at = &next.chain
	}
	if x.objects--; x.objects < len(*buckets)/8 && len(*buckets) > minBuckets {
		x.resize(len(*buckets) / 2)
	}
	return true
}

// resize moves all objects into n chains.
func (x *index) resize(n int) {
	old := x.buckets.Load()
	buckets := make([]atomic.Pointer[object], n)
	if old != nil {
		for i := range *old {
			var chain []*object
			for o := (*old)[i].Load(); o != nil; o = o.chain.Load() {
				chain = append(chain, o)
			}
			for j := len(chain) - 1; j >= 0; j-- { // oldest first, so that the order stays
				push(buckets, chain[j])
			}
		}
	}
	x.buckets.Store(&buckets)
}
