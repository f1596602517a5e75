package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

// process is one child of the lab: a node, or a region's origins.
type process struct {
	name   string
	cmd    *exec.Cmd
	killed atomic.Bool   // by the lab
	done   chan struct{} // closed when it has ended
}

// spawn starts a child that ends with this process: the child watches the read end of parentPipe, whose write end only
// this process has. It gets a process group of its own, so that Ctrl-C reaches the lab alone. Callers hold mu.
func (l *Lab) spawn(name string, args ...string) (*process, error) {
	log, err := os.OpenFile(l.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(l.o.Executable, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(childEnv(os.Environ()), ParentPipeEnv+"=3", "LANDFALL_MESH_KEY="+l.meshKey)
	cmd.ExtraFiles = []*os.File{l.parentPipe}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
		close(p.done)
		if !p.killed.Load() {
			l.tellEnd(p)
		}
	}()
	return p, nil
}

// childEnv is the environment without what sets a node's flags: the lab's nodes are as the lab says.
func childEnv(env []string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, "LANDFALL_") {
			out = append(out, e)
		}
	}
	return out
}

// tellEnd tells that a process ended by itself. The lab goes on without it.
func (l *Lab) tellEnd(p *process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up || l.stopping || l.o.Out == nil {
		return // before the lab is up it is Start's error
	}
	_, _ = io.WriteString(l.o.Out, fmt.Sprintf("\n%s (process %d) ended by itself: %s. The lab goes on without it. The end of %s:\n%s\n",
		p.name, p.cmd.Process.Pid, p.state(), l.logFile(p.name), l.lastLines(p.name, 8)))
}

func (l *Lab) logFile(name string) string { return filepath.Join(l.fleet.Dir, name+".log") }

// alive tells whether the process has not ended.
func (p *process) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// pid is the process's id, or 0 when it has ended.
func (p *process) pid() int {
	if !p.alive() {
		return 0
	}
	return p.cmd.Process.Pid
}

// state is how the process ended.
func (p *process) state() string {
	if p.alive() {
		return "it runs"
	}
	return p.cmd.ProcessState.String()
}

// kill ends the process at once and waits for its end.
func (p *process) kill() {
	if p.alive() {
		p.killed.Store(true)
		_ = p.cmd.Process.Kill() // it may have just ended
		<-p.done
	}
}

// maxTail bounds how much of a log is read for its last lines, in bytes.
const maxTail = 8 << 10

// lastLines are the end of a child's log, for people to see what it died of.
func (l *Lab) lastLines(name string, n int) string {
	f, err := os.Open(l.logFile(name))
	if err != nil {
		return "\t(no log)"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxTail {
		_, _ = f.Seek(-maxTail, io.SeekEnd)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTail))
	text := strings.TrimSpace(string(data))
	if err != nil || text == "" {
		return "\t(its log is empty)"
	}
	lines := strings.Split(text, "\n")
	return "\t" + strings.Join(lines[max(0, len(lines)-n):], "\n\t")
}
