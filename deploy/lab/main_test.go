package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays three parts beside its own. As "landfall run" and "landfall lab-origin" it is a child that does
// what $TEST_CHILD says; with $TEST_PARENT it is a lab's process that has such children and waits to be killed.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && (os.Args[1] == "run" || os.Args[1] == "lab-origin"):
		playChild()
	case os.Getenv("TEST_PARENT") != "":
		playParent(os.Getenv("TEST_PARENT"))
	default:
		goleak.VerifyTestMain(m)
	}
}

func playChild() {
	if dir := os.Getenv("TEST_PIDS"); dir != "" {
		_ = os.WriteFile(filepath.Join(dir, strconv.Itoa(os.Getpid())), nil, 0o600)
	}
	if os.Getenv("TEST_CHILD") == "die" {
		fmt.Println("boom: this child can't live")
		os.Exit(3)
	}
	WatchParent(os.Exit)
	select {} // until the parent is gone
}

func playParent(dir string) {
	l := &Lab{o: Options{Executable: os.Args[0]}, processes: map[string]*process{}}
	l.fleet.Dir = dir
	var err error
	if l.parentPipe, l.heldPipe, err = os.Pipe(); err != nil {
		panic(err)
	}
	for _, name := range []string{"a", "b"} {
		p, err := l.spawn(name, "run")
		if err != nil {
			panic(err)
		}
		fmt.Println(p.pid())
	}
	fmt.Println("ready")
	select {}
}

// gone tells whether a process has ended.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// eventually polls until a condition holds, and fails the test with what it still lacks after a generous while.
func eventually(t *testing.T, lacks func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := lacks()
		if missing == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(missing)
		case <-tick.C:
		}
	}
}

// pidsIn are the processes that left a file in a folder.
func pidsIn(t *testing.T, dir string) []int {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range files {
		if pid, err := strconv.Atoi(f.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// allGone tells which of the processes still live.
func allGone(pids []int) string {
	var alive []string
	for _, pid := range pids {
		if !gone(pid) {
			alive = append(alive, strconv.Itoa(pid))
		}
	}
	if len(alive) == 0 {
		return ""
	}
	return "these processes still live: " + strings.Join(alive, " ")
}
