// Package drill runs drills: it sends a fleet steady client traffic from every place, breaks something, mends it, and
// accounts for each request. A drill passes when its promise held and fails when it did not; there is nothing between.
//
// The clients behave as browsers do: they resolve by DNS and honour the TTL, keep connections, and fall back to the second
// address of an answer. The package knows a fleet by the lab's control API, DNS, the admin API and what a client sees.
package drill
