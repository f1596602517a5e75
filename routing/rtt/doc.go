// Package rtt remembers how far clients are: the round trips that regions measured on their own clients' connections, by
// the clients' prefixes. It feeds the decision (routing.Client.RTT), which prefers what was measured to geography.
//
// A node measures its own clients (Observe), tells the other nodes what changed (Deltas, in a compact form) and takes
// what they tell (Merge). For each prefix (/24, /48) and for a wider network around it (/16, /32) there is one row with
// one figure for each region: two bytes of tenths of a millisecond and two of time, so that a million rows of 12 regions
// take about 100 MB. Past its bound the table forgets rows at random. Figures older than MaxAge are not used.
//
// There is no clock and no goroutine here.
package rtt
