package main

import (
	"errors"
	"syscall"
)

// ownGroup makes a process the leader of a group, as a shell does, so that a test can send what a terminal sends.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// signal sends a signal to the process alone.
func (p *program) signal(s syscall.Signal) { _ = syscall.Kill(p.Process.Pid, s) }

// interrupt sends SIGINT to the process's whole group, as Ctrl-C in a terminal does.
func (p *program) interrupt() { _ = syscall.Kill(-p.Process.Pid, syscall.SIGINT) }

// gone tells whether a process has ended.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
