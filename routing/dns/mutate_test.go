package dns

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mutations is how many queries TestMutatedQueries asks. A million take about a minute:
//
//	go test ./routing/dns -run TestMutatedQueries -mutations 1000000
var (
	mutations    = flag.Int("mutations", 20_000, "how many mutated queries TestMutatedQueries asks")
	mutationSeed = flag.Uint64("mutation-seed", 1, "which queries TestMutatedQueries asks")
)

// TestMutatedQueries asks what a broken, hostile or confused client might: each query of the transcripts, changed in one
// place or more. None may be met by a panic; each gets an answer that holds what FuzzRespond asks of answers, or silence
// where that is right.
func TestMutatedQueries(t *testing.T) {
	s := fuzzedServer(t)
	pool := transcriptQueries(t)
	r := rand.New(rand.NewPCG(*mutationSeed, 0))
	rcodes := map[string]int{}
	for i := range *mutations {
		msg := bytes.Clone(pool[r.IntN(len(pool))])
		for msg = mutate(r, msg, pool); r.IntN(3) == 0; {
			msg = mutate(r, msg, pool)
		}
		tcp := r.IntN(2) == 0
		res := checkAnswer(t, s, msg, tcp)
		if t.Failed() {
			t.Fatalf("mutation %d of seed %d: %x, tcp %t", i, *mutationSeed, msg, tcp)
		}
		what := "silence"
		if res != nil {
			what = rcodeLabel(int(res[3] & 0xF))
		}
		rcodes[what]++
	}
	t.Logf("%d queries: %v", *mutations, rcodes)
	if rcodes["NOERROR"] < *mutations/10 || rcodes["NXDOMAIN"] == 0 || rcodes["REFUSED"] == 0 {
		t.Error("hardly a mutation is still a query that can be answered: they test little")
	}
}

// transcriptQueries are the queries of the transcripts.
func transcriptQueries(t testing.TB) (out [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if query, ok := strings.CutPrefix(line, ">"); ok {
				out = append(out, wireOf(t, strings.TrimSpace(query)))
			}
		}
	}
	return out
}

// mutate changes one thing of a message.
func mutate(r *rand.Rand, msg []byte, pool [][]byte) []byte {
	if len(msg) == 0 {
		return append(msg, byte(r.Uint32()))
	}
	at := r.IntN(len(msg))
	switch r.IntN(16) {
	default: // another letter of the name, or of what stands where it would
		if at = headerSize + 1 + r.IntN(20); at < len(msg) {
			msg[at] = "abWx1-_*."[r.IntN(9)]
		}
	case 0: // a bit
		msg[at] ^= 1 << r.IntN(8)
	case 1: // a byte
		msg[at] = byte(r.Uint32())
	case 2: // the limits of a length
		msg[at] = []byte{0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF}[r.IntN(8)]
	case 3: // cut short
		msg = msg[:at]
	case 4: // more than there should be
		more := make([]byte, r.IntN(64))
		for i := range more {
			more[i] = byte(r.Uint32())
		}
		msg = append(msg, more...)
	case 5: // a byte more or less in the middle
		if r.IntN(2) == 0 {
			msg = append(msg[:at], msg[at+1:]...)
		} else {
			msg = append(msg[:at+1], msg[at:]...)
		}
	case 6: // a count of the header
		if len(msg) >= headerSize {
			binary.BigEndian.PutUint16(msg[4+2*r.IntN(4):], uint16(r.IntN(4)))
		}
	case 7: // the tail of another query
		other := pool[r.IntN(len(pool))]
		msg = append(msg[:at], other[min(at, len(other)):]...)
	case 8: // a type, class or flags
		if at+1 < len(msg) {
			binary.BigEndian.PutUint16(msg[at:], uint16(r.Uint32()))
		}
	}
	return msg
}
