package proxy

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// frame is a WebSocket frame of n bytes.
func frame(n int, masked bool) []byte {
	b := []byte{0x82, 0}
	switch {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, make([]byte, n)...)
}

// Wherever the word to go comes in a stream of frames, the Close frame stands between two of them, once, and nothing after.
func TestFarewellStandsBetweenFrames(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		var stream []byte
		ends := map[int]bool{0: true}
		for range 6 {
			stream = append(stream, frame([]int{0, 1, 125, 126, 300, 65535, 65536}[rng.IntN(7)], round%2 == 0)...)
			ends[len(stream)] = true
		}
		var out bytes.Buffer
		f := &farewell{dst: &out}
		at := rng.IntN(len(stream) + 1)
		for i := 0; i < len(stream); {
			n := min(1+rng.IntN(2000), len(stream)-i)
			if i <= at && at < i+n {
				f.say()
			}
			m, err := f.Write(stream[i : i+n])
			if err != nil || m <= 0 {
				t.Fatal(m, err)
			}
			i += m
		}
		f.say()
		f.say()
		got, told := bytes.CutSuffix(out.Bytes(), goingAway())
		if !told || !ends[len(got)] || !bytes.Equal(got, stream[:len(got)]) {
			t.Fatalf("round %d: told %v, after %d bytes of %d", round, told, len(got), len(stream))
		}
	}
}

func FuzzSocketFrames(f *testing.F) {
	f.Add(frame(3, true), 1)
	f.Add(frame(200, false), 7)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		var whole, pieces socketFrames
		whole.follow(data)
		step = max(step%len(append(data, 0)), 1)
		for rest := data; len(rest) > 0; {
			n := min(step, len(rest))
			pieces.follow(rest[:n])
			rest = rest[n:]
		}
		if whole.have != pieces.have || whole.left != pieces.left {
			t.Errorf("%+v in one, %+v in pieces", whole, pieces)
		}
	})
}
