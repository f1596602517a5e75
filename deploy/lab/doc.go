// Package lab runs a whole fleet on one machine: regions of real `landfall run` processes, each node on a loopback address
// of its own (127.0.REGION.NODE), with demo origins, a certificate authority, a MaxMind file that maps the documentation
// prefixes to the regions, and simulated distance between the regions.
//
// The lab owns its processes: they end with it, also when it is killed, since each holds one end of a pipe whose other
// end only the lab has. A control API on loopback lets drills kill and start regions. The package knows nodes only by
// their command line, their config file and their admin API.
package lab
