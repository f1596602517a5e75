// Package drill runs drills: it sends a fleet steady client traffic from every place, breaks something, mends it, and
// accounts for each request. A drill passes when its promise held and fails when it did not; there is nothing between.
//
// The clients are lab.Client, which behave as browsers do. The package knows a fleet by the lab's control API, DNS, the
// admin API and what a client sees.
package drill
