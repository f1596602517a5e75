// Package push hands the addresses of the fleet's hosts to other DNS providers, for those who keep their DNS where it is.
//
// A target is a zone at a provider. One elected node brings the addresses of each host in it to what Wanted says, by the
// provider's own interface (libdns), at a bounded rate. What is pushed can't tell clients apart: it is the same for all.
//
// What holds whatever fails:
//
//   - A name is never emptied: without an address to give it keeps what it has, and it is never removed.
//   - A name's new addresses are there before its other family goes.
//   - Calls come at most once an interval, slower after failures; changes meanwhile are folded into the next call.
//   - A node that fails several times is troubled for a while, so that one that reaches the provider can be elected.
//   - A node that is elected does not know what its forerunner pushed: it pushes all, once it has had time to learn the
//     fleet. All is pushed again now and then, so that what somebody else changed is repaired.
//
// It knows nothing of the fleet: package gateway elects and says what is wanted. Adding a provider of the libdns family is
// adding a constructor beside RFC2136.
package push
