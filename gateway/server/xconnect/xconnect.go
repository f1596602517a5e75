// Package xconnect switches on the extended CONNECT method (RFC 8441) in net/http's HTTP/2 server, by which WebSockets come
// over HTTP/2. It is imported for that alone, by gateway/server.
//
// net/http offers extended CONNECT only where the environment says GODEBUG=http2xconnect=1, and looks once, when it is
// initialised (golang.org/issue/71128: browsers use what is offered, and not every handler is ready for it; ours is). So
// the variable has to be set before. That this package is initialised before net/http is the language's own rule: of the
// packages whose imports are initialised, the first by import path comes next ("landfall" is before "net"), and os, all
// that is needed here, is among what net/http waits for, too. A test in gateway/server holds that it works.
//
// An operator who sets http2xconnect in GODEBUG, to 0 too, is heeded.
package xconnect

import (
	"os"
	"strings"
)

var _ = offer()

func offer() error {
	const setting = "http2xconnect="
	debug := os.Getenv("GODEBUG")
	if strings.Contains(debug, setting) {
		return nil
	}
	if debug != "" {
		debug += ","
	}
	return os.Setenv("GODEBUG", debug+setting+"1")
}
