package disk

// RecordMemory is what a record takes in memory: an entry, its number in its segment's list, and its place in the map.
const RecordMemory = 40 + 4 + 24

// none is no entry.
const none = ^uint32(0)

// entry is where a record is.
type entry struct {
	hash, variant uint64
	offset        uint32 // in its segment, in units of align
	size          uint32 // in units of align
	segment       uint32
	head          uint32
	next          uint32 // of its hash, older; of the free ones
	live          bool
}

// index finds records by hash. It is a slab of entries, in chains that begin in a map, so that the collector has nothing
// to follow.
type index struct {
	first   map[uint64]uint32
	entries []entry
	free    uint32
	count   int
}

func newIndex() *index { return &index{first: make(map[uint64]uint32), free: none} }

// add puts an entry before those of its hash, and returns its number.
func (x *index) add(e entry) uint32 {
	e.live, e.next = true, none
	if first, ok := x.first[e.hash]; ok {
		e.next = first
	}
	id := x.free
	if id == none {
		id = uint32(len(x.entries))
		x.entries = append(x.entries, e)
	} else {
		x.free = x.entries[id].next
		x.entries[id] = e
	}
	x.first[e.hash] = id
	x.count++
	return id
}

// chain are the entries of a hash, newest first.
func (x *index) chain(hash uint64) (ids []uint32) {
	id, ok := x.first[hash]
	for ; ok && id != none; id = x.entries[id].next {
		ids = append(ids, id)
	}
	return ids
}

// find is the entry of a hash and variant.
func (x *index) find(hash, variant uint64) (id uint32, ok bool) {
	id, ok = x.first[hash]
	for ; ok && id != none; id = x.entries[id].next {
		if x.entries[id].variant == variant {
			return id, true
		}
	}
	return none, false
}

func (x *index) remove(id uint32) {
	e := &x.entries[id]
	if !e.live {
		return
	}
	if first := x.first[e.hash]; first == id {
		if e.next == none {
			delete(x.first, e.hash)
		} else {
			x.first[e.hash] = e.next
		}
	} else {
		at := first
		for x.entries[at].next != id {
			at = x.entries[at].next
		}
		x.entries[at].next = e.next
	}
	*e = entry{next: x.free}
	x.free = id
	x.count--
}
