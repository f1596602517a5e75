package mesh

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// The version of the peer protocol. Two versions understand each other when their ranges overlap; a binary speaks its
// own and the one before.
const (
	protoVersion = 3
	protoOldest  = 2
	protoPulses  = 3 // since when pulses are understood
)

// Bounds of what one link carries.
const (
	maxFrame    = 2 << 20 // bytes of one message
	maxNames    = MaxMembers
	maxSections = 32
	pageBytes   = 256 << 10 // about how much one page of registers carries
)

// kind is what a message is; its number is part of the protocol. A kind that this version does not know is skipped.
type kind uint8

const (
	kindBeat  kind = 1
	kindSoft  kind = 2 // what a node says of itself, whole or as a delta
	kindNeed  kind = 3 // asks for the whole of what some nodes said
	kindHeld  kind = 4 // which versions of whose words the sender holds
	kindPush  kind = 5 // a register
	kindTaken kind = 6 // who has a register on disk
	kindSums  kind = 7 // asks for the registers in which the receiver differs
	kindPage  kind = 8 // registers
	kindBye   kind = 9 // the sender ends the link on purpose
	kindPulse kind = 10
)

// String is the kind's name in metrics.
func (k kind) String() string {
	names := [...]string{"unknown", "beat", "soft", "need", "held", "push", "taken", "sums", "page", "bye", "pulse"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// message is one of the types below. Messages are immutable once sent: the simulator hands them over as they are.
type message interface{ kind() kind }

// beat is the heartbeat of a link. Everything that must arrive is a message of its own; a beat may be lost.
type beat struct {
	seq, echo uint64 // its own number; the latest that the sender received
	hold      uint64 // microseconds since the sender received that one
	registers uint32 // digest of the registers
	soft      uint32 // digest of the soft state
	flags     uint8
	wall      int64 // the sender's clock in Unix milliseconds; 0: not told this time
}

const (
	flagReady uint8 = 1 << iota // it has merged the fleet's registers
	flagStale                   // it was away for so long that its registers may be deleted ones
	flagHeard                   // it has heard the receiver within the last beats
)

// pulse is a beat that says: as in my last whole beat, and I have heard you within the last beats. It is most of what a
// fleet at peace sends, and so it is the message without a byte.
type pulse struct{}

// soft is what a node says of itself. Sections that a version does not know are kept and passed on.
type soft struct {
	node     string
	boot     string
	version  uint64 // grows by one with each change within one boot
	base     uint64 // 0: all sections; else only those that changed since that version
	age      uint64 // milliseconds since the report was renewed
	sections []section
}

type section struct {
	id   uint64
	body []byte
}

// The sections.
const (
	sectionInfo        = 1 // as in gossip
	sectionReport      = 2 // JSON; empty: withdrawn
	sectionUnreachable = 3 // names
	sectionWatches     = 4 // names
	sectionRTT         = 5 // round trips to the regions
	sectionPlace       = 6 // network coordinate

	sectionSights = 16 // JSON; empty: withdrawn
)

// need asks for the whole words of the named nodes.
type need struct{ nodes []string }

// held tells which versions the sender holds.
type held struct {
	nodes    []string
	boots    []uint32 // hash of the boot id
	versions []uint64
}

// push is a register on its way. relay asks the receiver to spread it in its region and to tell who took it.
type push struct {
	register Register
	relay    bool
}

// taken tells who has a register, or why the sender won't have it.
type taken struct {
	stamp   Stamp
	names   []string
	refused string
}

// sums asks for what the receiver holds in the parts where its sums differ, after a key.
type sums struct {
	id    uint64
	sums  []uint64
	after string
}

// page answers sums, or (id 0) gives registers unasked.
type page struct {
	id        uint64
	sums      []uint64
	registers []Register
	next      string
}

// bye ends a link.
type bye struct{ why string }

func (pulse) kind() kind  { return kindPulse }
func (*beat) kind() kind  { return kindBeat }
func (*soft) kind() kind  { return kindSoft }
func (*need) kind() kind  { return kindNeed }
func (*held) kind() kind  { return kindHeld }
func (*push) kind() kind  { return kindPush }
func (*taken) kind() kind { return kindTaken }
func (*sums) kind() kind  { return kindSums }
func (*page) kind() kind  { return kindPage }
func (*bye) kind() kind   { return kindBye }

// appendMessage encodes a message without its length: the kind, then its fields; texts and lists after their length.
// Registers are JSON, so that fields of later versions pass through.
func appendMessage(b []byte, m message) []byte {
	if _, ok := m.(pulse); ok {
		return b
	}
	b = append(b, byte(m.kind()))
	switch m := m.(type) {
	case *beat:
		b = binary.AppendUvarint(b, m.seq)
		b = binary.AppendUvarint(b, m.echo)
		b = binary.AppendUvarint(b, m.hold)
		b = binary.BigEndian.AppendUint32(b, m.registers)
		b = binary.BigEndian.AppendUint32(b, m.soft)
		b = append(b, m.flags)
		if m.wall > 0 {
			b = binary.AppendUvarint(b, uint64(m.wall))
		}
	case *soft:
		b = appendText(appendText(b, m.node), m.boot)
		for _, v := range []uint64{m.version, m.base, m.age, uint64(len(m.sections))} {
			b = binary.AppendUvarint(b, v)
		}
		for _, s := range m.sections {
			b = binary.AppendUvarint(b, s.id)
			b = appendText(b, string(s.body))
		}
	case *need:
		b = appendNames(b, m.nodes)
	case *held:
		b = appendNames(b, m.nodes)
		for i := range m.nodes {
			b = binary.BigEndian.AppendUint32(b, m.boots[i])
			b = binary.AppendUvarint(b, m.versions[i])
		}
	case *push:
		b = append(b, bit(m.relay))
		b = append(b, encode(m.register)...)
	case *taken:
		b = binary.AppendUvarint(b, uint64(m.stamp.Wall))
		b = binary.AppendUvarint(b, uint64(m.stamp.Logical))
		b = appendText(b, m.stamp.Node)
		b = appendText(appendNames(b, m.names), m.refused)
	case *sums:
		b = binary.AppendUvarint(b, m.id)
		b = appendText(appendSums(b, m.sums), m.after)
	case *page:
		b = binary.AppendUvarint(b, m.id)
		b = appendText(appendSums(b, m.sums), m.next)
		b = append(b, encode(m.registers)...)
	case *bye:
		b = appendText(b, m.why)
	}
	return b
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendNames(b []byte, names []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, n := range names {
		b = appendText(b, n)
	}
	return b
}

func appendSums(b []byte, sums []uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(sums)))
	for _, s := range sums {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	return b
}

// errShort is what is wrong with a message that ends too soon or exceeds a bound.
var errShort = errors.New("a message is cut short or exceeds its bounds")

// decodeMessage decodes and checks what appendMessage made; nil without an error is a kind that this version does not
// know. What later versions append to a message is skipped. It keeps no part of b.
func decodeMessage(b []byte) (message, error) {
	switch {
	case len(b) == 0:
		return pulse{}, nil
	case len(b) > maxFrame:
		return nil, errShort
	}
	r := &wire{rest: b[1:]}
	m, err := r.message(kind(b[0]))
	if err == nil && r.failed {
		err = errShort
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (r *wire) message(k kind) (message, error) {
	switch k {
	case kindBeat:
		m := &beat{seq: r.number(), echo: r.number(), hold: r.number(), registers: r.word(), soft: r.word(), flags: r.byte()}
		if len(r.rest) > 0 {
			m.wall = int64(r.number() & (1<<62 - 1))
		}
		return m, nil
	case kindSoft:
		return r.soft(), nil
	case kindNeed:
		return &need{r.names()}, nil
	case kindHeld:
		m := &held{nodes: r.names()}
		for range m.nodes {
			m.boots, m.versions = append(m.boots, r.word()), append(m.versions, r.number())
		}
		return m, nil
	case kindPush:
		m := &push{relay: r.byte() == 1}
		if err := json.Unmarshal(r.rest, &m.register); err != nil {
			return nil, fmt.Errorf("a register is not understood: %w", err)
		}
		var err error
		m.register, err = m.register.canonical()
		return m, err
	case kindTaken:
		m := &taken{stamp: Stamp{Wall: int64(r.number() & (1<<62 - 1)), Logical: uint32(r.number()), Node: r.text(maxText)}}
		m.names, m.refused = r.names(), r.text(maxRefusal)
		return m, nil
	case kindSums:
		m := &sums{id: r.number(), sums: r.sums()}
		m.after = r.text(MaxKey)
		return m, nil
	case kindPage:
		m := &page{id: r.number(), sums: r.sums(), next: r.text(MaxKey)}
		return m, m.read(r.rest)
	case kindBye:
		return &bye{r.text(maxRefusal)}, nil
	}
	return nil, nil
}

// read takes the registers of a page; one that this version can't take is left out, since versions mix.
func (m *page) read(raw []byte) error {
	var all []Register
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("a page of registers is not understood: %w", err)
	}
	if len(all) > MaxRegisters {
		return errShort
	}
	for _, r := range all {
		if c, err := r.canonical(); err == nil {
			m.registers = append(m.registers, c)
		}
	}
	return nil
}

func (r *wire) soft() *soft {
	m := &soft{node: r.name(), boot: r.text(maxText), version: r.number(), base: r.number(), age: r.number()}
	n := r.number()
	if n > maxSections || m.base >= m.version {
		r.failed = true
		return m
	}
	for range n {
		m.sections = append(m.sections, section{r.number(), []byte(r.text(MaxReport))})
	}
	return m
}

// maxRefusal bounds the text of a refusal in bytes.
const maxRefusal = 512

// wire takes a message apart; once it ran out, it stays failed and returns zeros.
type wire struct {
	rest   []byte
	failed bool
}

func (r *wire) take(n uint64) []byte {
	if r.failed || n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *wire) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *wire) signed() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *wire) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *wire) word() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// text is a text of at most limit bytes.
func (r *wire) text(limit int) string {
	n := r.number()
	if n > uint64(limit) {
		r.failed = true
	}
	return string(r.take(n))
}

// name is a node's name.
func (r *wire) name() string {
	s := r.text(maxText)
	if !validName(s) {
		r.failed = true
	}
	return s
}

func (r *wire) names() []string {
	n := r.number()
	if n > maxNames || n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	var out []string
	for range n {
		out = append(out, r.name())
	}
	return out
}

func (r *wire) sums() []uint64 {
	n := r.number()
	if n != 0 && n != buckets {
		r.failed = true
		return nil
	}
	var out []uint64
	for range n {
		if b := r.take(8); b != nil {
			out = append(out, binary.BigEndian.Uint64(b))
		}
	}
	return out
}

// namesBody and namesIn are a list of names as a section's body.
func namesBody(names []string) []byte { return appendNames(nil, names) }

func namesIn(body []byte) []string {
	if len(body) == 0 {
		return nil
	}
	r := &wire{rest: body}
	out := r.names()
	if r.failed {
		return nil
	}
	return out
}

// MaxReport bounds a report in bytes.
const MaxReport = 64 << 10
