package disk

import (
	"sync"
	"testing"
	"time"
)

// A record that is removed while it is being written is gone, and stays so.
func TestRemoveWhileWritten(t *testing.T) {
	fs, dir := &faulty{}, t.TempDir()
	s := open(t, dir, func(o *Options) { o.FS = fs })
	begun, goOn := make(chan struct{}), make(chan struct{})
	fs.mu.Lock()
	fs.writing = sync.OnceFunc(func() { close(begun); <-goOn })
	fs.mu.Unlock()
	s.Put(record(1, 100))
	<-begun
	s.Remove(1, 1)
	close(goOn)
	flushed(t, s)
	if has(t, s, 1, 100) {
		t.Error("it is there")
	}
	s.Close(time.Minute)
	if s = open(t, dir); has(t, s, 1, 100) {
		t.Error("it is there after a restart")
	}
}
