package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is one child of the lab: a node, or a region's origins. It belongs to the Lab's lock.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// spawn starts a child that ends with this process: the child watches the read end of parentPipe, whose write end only
// this process has. It gets a process group of its own, so that Ctrl-C reaches the lab alone, which stops in order.
func (l *Lab) spawn(name string, args ...string) (*process, error) {
	log, err := os.OpenFile(l.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(l.o.Executable, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), ParentPipeEnv+"=3", "LANDFALL_MESH_KEY="+l.meshKey)
	cmd.ExtraFiles = []*os.File{l.parentPipe}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its exit code is in the log
		close(p.done)
	}()
	return p, nil
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

// kill ends the process at once and waits for its end.
func (p *process) kill() {
	if p.alive() {
		_ = p.cmd.Process.Kill() // it may have just ended
		<-p.done
	}
}

// stop asks the process to end in order, and kills it when it takes longer than patience.
func (p *process) stop(patience time.Duration) {
	if !p.alive() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
	}
}

// lastLines are the end of a child's log, for the error that it died with.
func (l *Lab) lastLines(name string, n int) string {
	data, err := os.ReadFile(l.logFile(name))
	if err != nil {
		return "(no log)"
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "\t" + strings.Join(lines[max(0, len(lines)-n):], "\n\t")
}
