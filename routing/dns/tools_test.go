package dns

import (
	"net"
	"os/exec"
	"strings"
	"testing"
)

// TestOthersTools asks a running server with the tools that operators have. They parse strictly, and complain about what a
// client of our own library would forgive; what each query has to bring is the same for all.
func TestOthersTools(t *testing.T) {
	r := start(t, "127.0.0.1:0", func(o *Options) { o.NSID = "node-1" })
	host, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tool, pkg string
		args      string // SERVER and PORT stand for the server's
		has       string // pieces that the output must have, after commas
	}{
		{"dig", "dnsutils", "@SERVER -p PORT +norec +nocookie www.edge.test A", "status: NOERROR,flags: qr aa;,www.edge.test."},
		{"dig", "dnsutils", "@SERVER -p PORT +norec +cookie +nsid +subnet=198.51.100.0/24 www.edge.test AAAA", "status: NOERROR,COOKIE: ,(good),NSID: ,node-1,CLIENT-SUBNET: 198.51.100.0/24/"},
		{"dig", "dnsutils", "@SERVER -p PORT +norec +edns=1 +noednsneg edge.test SOA", "status: BADVERS,version: 0"},
		{"dig", "dnsutils", "@SERVER -p PORT +norec +ednsopt=65001:abcd wWw.eDgE.tEsT A", "status: NOERROR,wWw.eDgE.tEsT."},
		{"dig", "dnsutils", "@SERVER -p PORT +norec +tcp edge.test ANY", "status: NOERROR"},
		{"dig", "dnsutils", "@SERVER -p PORT +norec +opcode=status edge.test", "status: NOTIMP"},
		{"dig", "dnsutils", "@SERVER -p PORT +norec nothing.edge.test A", "status: NXDOMAIN,SOA"},
		{"dig", "dnsutils", "@SERVER -p PORT +norec elsewhere.example A", "status: REFUSED"},
		{"kdig", "knot-dnsutils", "@SERVER -p PORT +norec +nocookie www.edge.test A", "status: NOERROR,qr aa,www.edge.test."},
		{"kdig", "knot-dnsutils", "@SERVER -p PORT +norec +tcp +subnet=198.51.100.0/24 edge.test NS", "status: NOERROR,NS"},
		{"kdig", "knot-dnsutils", "@SERVER -p PORT +norec nothing.edge.test A", "status: NXDOMAIN,SOA"},
		{"drill", "ldnsutils", "-p PORT @SERVER www.edge.test A", "rcode: NOERROR,qr aa,www.edge.test."},
		{"drill", "ldnsutils", "-t -p PORT @SERVER edge.test SOA", "rcode: NOERROR,SOA"},
		{"drill", "ldnsutils", "-p PORT @SERVER nothing.edge.test A", "rcode: NXDOMAIN,SOA"},
	} {
		t.Run(c.tool+" "+c.args, func(t *testing.T) {
			path, err := exec.LookPath(c.tool)
			if err != nil {
				t.Skipf("%s is not installed (Debian: apt install %s)", c.tool, c.pkg)
			}
			args := strings.Fields(strings.NewReplacer("SERVER", host, "PORT", port).Replace(c.args))
			out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for piece := range strings.SplitSeq(c.has, ",") {
				if !strings.Contains(string(out), piece) {
					t.Errorf("no %q in\n%s", piece, out)
				}
			}
			for _, complaint := range []string{"WARNING", "Warning", ";; Got bad packet", "malformed", "extra bytes"} {
				if strings.Contains(string(out), complaint) {
					t.Errorf("it complains: %s", out)
				}
			}
		})
	}
}
