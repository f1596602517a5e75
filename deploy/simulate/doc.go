// Package simulate runs a fleet on paper: clients by place with a daily curve, failures and drains over time, through the
// decision that the nodes make (gateway.Paper, routing) and the control that they keep (routing.Spill). It tells who goes
// where, what spilled, how far clients had to go, and whether anything was overloaded. Nothing is sent anywhere, and no
// time passes.
//
// What it leaves out: caching, retries, and that resolvers are not where their clients are. Clients follow a changed
// answer with the TTL's lag; when a region dies they fall back to their second address at once.
package simulate
