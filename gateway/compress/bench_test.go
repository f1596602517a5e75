package compress

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"
)

// BenchmarkResponse is a response of known length from header to end, per coding and size; "%" is what is left of it.
func BenchmarkResponse(b *testing.B) {
	for _, coding := range []string{"gzip", "zstd", "br"} {
		for _, size := range []int{10 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", coding, size>>10), func(b *testing.B) {
				c, _ := newTest(b, 0)
				data := sample(size)
				buf := make([]byte, 32<<10)
				var out int64
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					resp := c.Response(response("GET", 200, data, "Content-Type", "text/html", "Etag", `"x"`), coding)
					out, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
					resp.Body.Close()
				}
				b.ReportMetric(100*float64(out)/float64(size), "%")
			})
		}
	}
}

// BenchmarkEncoderMemory measures what a live encoder holds once 1 MiB went through it, buffers included.
func BenchmarkEncoderMemory(b *testing.B) {
	const bodies = 16
	data := sample(1 << 20)
	for _, coding := range []string{"gzip", "zstd", "br"} {
		b.Run(coding, func(b *testing.B) {
			for b.Loop() {
				c, _ := newTest(b, 0)
				before := heap()
				var open []io.Closer
				for range bodies {
					resp := c.Response(stream(io.NopCloser(io.MultiReader(bytes.NewReader(data), &failing{io.ErrNoProgress}))), coding)
					io.Copy(io.Discard, io.LimitReader(resp.Body, 120<<10))
					open = append(open, resp.Body)
				}
				b.ReportMetric(float64(heap()-before)/bodies/(1<<20), "MiB/encoder")
				for _, body := range open {
					body.Close()
				}
			}
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
