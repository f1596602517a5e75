package cache

// s3fifo chooses what is evicted: S3-FIFO (Yang et al., SOSP 2023). What is new waits in a small queue; most of it is never
// asked for again and leaves by its end, so a scan or a crowd of one-time objects passes through a twentieth of the memory and
// drives out nothing that is in use. What was used meanwhile, or comes back soon after it left, goes to the main queue,
// whose end gives those that were used another round. TestHitRatio compares it with the alternatives.
//
// It is written here since no library serves: bytes are reserved before an object is whole, a purge counts what it took, and
// a hit may take no lock, not even a buffer's.
//
// A hit takes part only by object.used. All methods are called under the budget's lock.
type s3fifo struct {
	small, main queue
	maxSmall    int64
	ghost       []ghost // what left the small queue, by slots that newer ones overwrite
	left        uint32  // counts it
}

// ghost is a part of an object's hash, and when the object left.
type ghost struct{ tag, left uint32 }

// Queues of an object.
const (
	queueNone = iota
	queueSmall
	queueMain
)

const (
	// smallShare: the small queue's part of the bytes is one in so many. ghostShare: what left is remembered while one in so
	// many of the objects stored now have left since. Both are the best of those tried on the traces of TestHitRatio.
	smallShare = 20
	ghostShare = 2

	slotBytes = 1 << 10 // there is a slot for so many bytes
	ghostSize = 8

	// maxSteps bounds the search for a victim: hits that go on marking must not keep a miss waiting.
	maxSteps = 1024
)

func newS3FIFO(maxBytes int64) s3fifo {
	return s3fifo{maxSmall: maxBytes / smallShare, ghost: make([]ghost, max(maxBytes/slotBytes, 1))}
}

// bytes is what the policy itself takes.
func (p *s3fifo) bytes() int64 { return int64(len(p.ghost)) * ghostSize }

func (p *s3fifo) slot(hash uint64) (slot *ghost, tag uint32) {
	return &p.ghost[hash%uint64(len(p.ghost))], uint32(hash>>32) | 1
}

// admit is the queue for a new object.
func (p *s3fifo) admit(o *object) uint8 {
	slot, tag := p.slot(o.hash)
	if slot.tag == tag && p.left-slot.left <= uint32((p.small.objects+p.main.objects)/ghostShare) {
		*slot = ghost{}
		return queueMain
	}
	return queueSmall
}

func (p *s3fifo) push(o *object, to uint8) {
	o.queue = to
	p.of(o).push(o)
}

func (p *s3fifo) remove(o *object) {
	p.of(o).remove(o)
	o.queue = queueNone
}

func (p *s3fifo) of(o *object) *queue {
	if o.queue == queueMain {
		return &p.main
	}
	return &p.small
}

// victim is what is to go next; it stays where it is. nil: there is nothing.
func (p *s3fifo) victim() *object {
	for range maxSteps {
		o := p.small.tail
		if o != nil && (p.small.bytes > p.maxSmall || p.main.tail == nil) {
			if o.uses.Load() < 1 {
				slot, tag := p.slot(o.hash)
				p.left++
				*slot = ghost{tag, p.left}
				return o
			}
			p.move(o)
			continue
		}
		if o = p.main.tail; o == nil {
			return nil
		}
		uses := o.uses.Load()
		if uses == 0 {
			return o
		}
		o.uses.Store(uses - 1) // a use lost to a hit at the same time costs nothing
		p.main.remove(o)
		p.main.push(o)
	}
	if p.main.tail != nil {
		return p.main.tail
	}
	return p.small.tail
}

// move takes an object that was used from the small queue to the main one.
func (p *s3fifo) move(o *object) {
	p.small.remove(o)
	o.uses.Store(0)
	p.push(o, queueMain)
}

// queue is a list of objects.
type queue struct {
	head, tail *object // newest and oldest
	bytes      int64
	objects    int
}

func (q *queue) push(o *object) {
	o.prev, o.next = nil, q.head
	if q.head != nil {
		q.head.prev = o
	} else {
		q.tail = o
	}
	q.head = o
	q.bytes += o.size
	q.objects++
}

func (q *queue) remove(o *object) {
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		q.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		q.tail = o.prev
	}
	o.prev, o.next = nil, nil
	q.bytes -= o.size
	q.objects--
}
