package server

// Bounds on the parts of a chunked body that are not data.
const (
	maxChunkLine = 512  // bytes of a chunk-size line with its extensions
	maxTrailers  = 3072 // bytes of the trailer section; net/http's own bound is a buffer of 4096
)

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExt
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart // at the beginning of a line of the trailer section
	trailerName
	trailerValue
	trailerLF
	chunkEndLF
)

// chunker follows a chunked body (RFC 9112 section 7.1) to its end without keeping any of it. It is stricter than the
// grammar where parsers differ: lines end in CRLF, sizes are bare hexadecimal digits.
type chunker struct {
	state  chunkState
	digits int   // of the size
	size   int64 // still to come of the chunk's data
	line   int   // bytes of the size line, or of the trailer section
}

// feed follows b. It returns how many bytes of b belong to the body and whether the body ends there.
func (k *chunker) feed(b []byte) (n int, done bool, no *refusal) {
	for n < len(b) {
		if k.state == chunkData {
			m := min(int64(len(b)-n), k.size)
			n += int(m)
			if k.size -= m; k.size == 0 {
				k.state = chunkDataCR
			}
			continue
		}
		c := b[n]
		n++
		if k.state == chunkEndLF {
			if c != '\n' {
				return n, false, refuseChunk
			}
			return n, true, nil
		}
		if !k.step(c) {
			return n, false, refuseChunk
		}
	}
	return n, false, nil
}

// step takes one byte that is not data; false means that it may not stand there.
func (k *chunker) step(c byte) bool {
	if k.state < chunkData {
		return k.stepSize(c)
	}
	switch k.state {
	case chunkDataCR:
		k.state = chunkDataLF
		return c == '\r'
	case chunkDataLF:
		*k = chunker{}
		return c == '\n'
	}
	return k.stepTrailer(c)
}

func (k *chunker) stepSize(c byte) bool {
	if k.line++; k.line > maxChunkLine {
		return false
	}
	switch k.state {
	case chunkSize:
		if v, ok := hexDigit(c); ok {
			k.digits++
			k.size = k.size<<4 | int64(v)
			return k.digits <= 15 // below 2^60
		}
		switch {
		case k.digits == 0:
			return false
		case c == ';':
			k.state = chunkExt
			return true
		case c == '\r':
			k.state = chunkSizeLF
			return true
		}
		return false
	case chunkExt:
		if c == '\r' {
			k.state = chunkSizeLF
			return true
		}
		return c == '\t' || c >= ' ' && c != 0x7f
	default: // chunkSizeLF
		k.line = 0
		if k.state = chunkData; k.size == 0 {
			k.state = trailerStart
		}
		return c == '\n'
	}
}

func (k *chunker) stepTrailer(c byte) bool {
	if k.line++; k.line > maxTrailers {
		return false
	}
	switch k.state {
	case trailerStart:
		if c == '\r' {
			k.state = chunkEndLF
			return true
		}
		k.state = trailerName
		return isTokenByte(c)
	case trailerName:
		if c == ':' {
			k.state = trailerValue
			return true
		}
		return isTokenByte(c)
	case trailerValue:
		if c == '\r' {
			k.state = trailerLF
			return true
		}
		return c == '\t' || c >= ' ' && c != 0x7f
	default: // trailerLF
		k.state = trailerStart
		return c == '\n'
	}
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
