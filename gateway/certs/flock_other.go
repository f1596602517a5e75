//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package certs

import "os"

// flock has no lock to take here: a data folder belongs to one process.
func flock(*os.File) (bool, error) { return true, nil }
