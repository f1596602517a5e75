package compress

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// encoder is what the three libraries have in common.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// coding is a content coding of the IANA registry that we can produce.
type coding struct {
	name   string
	suffix string // of entity tags
	make   func() (encoder, error)
}

// Indexes into codings.
const (
	codingZstd = iota
	codingBrotli
	codingGzip
)

const (
	// A window of 128 KiB keeps an encoder small and is far below the 8 MiB that decoders must accept (RFC 9659
	// section 3).
	zstdWindow = 128 << 10
	// Quality 5 with a window of 64 KiB: smaller output and a third of the memory of quality 4, whose hash table is
	// sized for larger windows, at two thirds of its speed.
	brotliQuality = 5
	brotliLGWin   = 16
	gzipLevel     = 6
	// readSize is how much is read from an origin at a time.
	readSize = 32 << 10
	// maxPooledOut is the largest output buffer that is kept for the next response.
	maxPooledOut = 256 << 10
)

// codings is read only: an array that is never assigned to.
var codings = [...]coding{
	codingZstd: {"zstd", "-zstd", func() (encoder, error) {
		return zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedDefault),
			zstd.WithWindowSize(zstdWindow),
			zstd.WithEncoderConcurrency(1), // no goroutines
			zstd.WithLowerEncoderMem(true),
			zstd.WithZeroFrames(true)) // an empty body is still a frame
	}},
	codingBrotli: {"br", "-br", func() (encoder, error) {
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: brotliQuality, LGWin: brotliLGWin}), nil
	}},
	codingGzip: {"gzip", "-gzip", func() (encoder, error) {
		return gzip.NewWriterLevel(nil, gzipLevel)
	}},
}

// unit is an encoder with its buffers: what a response holds while it is compressed.
type unit struct {
	enc encoder
	out bytes.Buffer // compressed, not yet read
	in  [readSize]byte
}

// pool keeps idle units of one coding. It is as bounded as the live units are, and the garbage collector empties it
// when traffic goes away.
type pool struct {
	make func() (encoder, error)
	idle sync.Pool
}

// get returns a unit whose encoder writes to its out. size is the length of what will be written, or -1.
func (p *pool) get(size int64) (*unit, error) {
	u, _ := p.idle.Get().(*unit)
	if u == nil {
		enc, err := p.make()
		if err != nil {
			return nil, fmt.Errorf("make an encoder: %w", err)
		}
		u = &unit{enc: enc}
	}
	if z, ok := u.enc.(*zstd.Encoder); ok && size > 0 {
		// The frame says how long the content is, so a decoder needs no more memory than that.
		z.ResetContentSize(&u.out, size)
	} else {
		u.enc.Reset(&u.out)
	}
	return u, nil
}

// put takes a unit back, whatever state its encoder is in: get resets it.
func (p *pool) put(u *unit) {
	if u.out.Cap() > maxPooledOut {
		u.out = bytes.Buffer{}
	}
	u.out.Reset()
	p.idle.Put(u)
}
