package dns

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

var update = flag.Bool("update", false, "write the answers in testdata/*.txt anew")

// TestTranscripts holds the answers against testdata/*.txt, a file for each RFC; those of rich-*.txt ask a zone
// with records of its own. A line with > is a query; what follows
// is the answer to it, as the library reads it. Lines with # say which rule is at stake.
//
// A query is a type, a name, and options: tcp, from=ADDR, id=N, class=C, opcode=N, flags=HEX, edns[=SIZE], do,
// version=N, subnet=PREFIX, option=CODE:HEX, type and class by name or number. Or it is "hex" and bytes.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			o := testOptions()
			if strings.HasPrefix(filepath.Base(file), "rich-") {
				o = richOptions(t)
			}
			s := mustNew(t, o)
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				switch {
				case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
					got.WriteString(line)
				case strings.HasPrefix(line, ">"):
					got.WriteString(line)
					got.WriteString(exchange(t, s, strings.TrimSpace(line[1:])))
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, file, string(want), got.String())
		})
	}
}

func compare(t *testing.T, file, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(end)", "(end)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			t.Fatalf("%s:%d differs from here on\nwant %s\ngot  %s", file, i+1, a, b)
		}
	}
}

// exchange sends the query that line describes and tells the answer, line by line.
func exchange(t testing.TB, s *Server, line string) string {
	t.Helper()
	msg, from, tcp := parseQuery(t, line)
	res := s.Respond(nil, msg, from, tcp)
	if res == nil {
		return "  silence\n"
	}
	var m mdns.Msg
	if err := m.Unpack(res); err != nil {
		t.Fatalf("%s: the library can't read the answer: %v\n%x", line, err, res)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %s id=%d flags=%04x size=%d\n", rcodeOf(&m), m.Id, binary.BigEndian.Uint16(res[2:]), len(res))
	for _, q := range m.Question {
		fmt.Fprintf(&b, "  question   %s %s %s\n", q.Name, mdns.Class(q.Qclass), mdns.Type(q.Qtype))
	}
	for i, rrs := range [][]mdns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			if opt, ok := rr.(*mdns.OPT); ok {
				fmt.Fprintf(&b, "  edns       size=%d version=%d do=%t", opt.UDPSize(), opt.Version(), opt.Do())
				for _, o := range opt.Option {
					switch o := o.(type) {
					case *mdns.EDNS0_SUBNET:
						fmt.Fprintf(&b, " subnet=%s", o)
					case *mdns.EDNS0_COOKIE:
						fmt.Fprintf(&b, " cookie=%s+%d", o.Cookie[:16], len(o.Cookie)/2-8) // ours is made of a secret
					default:
						fmt.Fprintf(&b, " option=%d:%s", o.Option(), o)
					}
				}
				b.WriteString("\n")
				continue
			}
			fmt.Fprintf(&b, "  %-10s %s\n", []string{"answer", "authority", "additional"}[i], strings.ReplaceAll(rr.String(), "\t", " "))
		}
	}
	return b.String()
}

func rcodeOf(m *mdns.Msg) string {
	rcode := m.Rcode
	if opt := m.IsEdns0(); opt != nil {
		rcode |= opt.ExtendedRcode()
	}
	return rcodeLabel(rcode)
}

// parseQuery builds the query of a transcript.
func parseQuery(t testing.TB, line string) (msg []byte, from netip.AddrPort, tcp bool) {
	t.Helper()
	fields := strings.Fields(line)
	from = resolverAddr
	if fields[0] == "hex" {
		msg, err := hex.DecodeString(strings.Join(fields[1:], ""))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return msg, from, false
	}
	m := &mdns.Msg{MsgHdr: mdns.MsgHdr{Id: 7, RecursionDesired: true}}
	m.Question = []mdns.Question{{Name: fields[1], Qtype: number(t, fields[0], mdns.StringToType), Qclass: mdns.ClassINET}}
	opt := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT}}
	opt.SetUDPSize(1232)
	edns := false
	flags := -1
	for _, f := range fields[2:] {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "tcp":
			tcp = true
		case "from":
			from = netip.AddrPortFrom(netip.MustParseAddr(value), 4242)
		case "id":
			m.Id = number(t, value, nil)
		case "class":
			m.Question[0].Qclass = number(t, value, mdns.StringToClass)
		case "opcode":
			m.Opcode = int(number(t, value, nil))
		case "flags":
			v, err := strconv.ParseUint(value, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			flags = int(v)
		case "edns":
			edns = true
			if value != "" {
				opt.SetUDPSize(number(t, value, nil))
			}
		case "do":
			edns = true
			opt.SetDo()
		case "version":
			edns = true
			opt.SetVersion(uint8(number(t, value, nil)))
		case "subnet":
			edns = true
			opt.Option = append(opt.Option, subnetOption(netip.MustParsePrefix(value)))
		case "option":
			edns = true
			opt.Option = append(opt.Option, rawOption(t, value))
		default:
			t.Fatalf("%s: unknown option %q", line, key)
		}
	}
	if edns {
		m.Extra = append(m.Extra, opt)
	}
	msg = mustPack(t, m)
	if flags >= 0 {
		binary.BigEndian.PutUint16(msg[2:], uint16(flags))
	}
	return msg, from, tcp
}

// rawOption is an EDNS option of any content, from CODE:HEX.
func rawOption(t testing.TB, s string) *mdns.EDNS0_LOCAL {
	t.Helper()
	code, data, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(data)
	if err != nil {
		t.Fatalf("option %s: %v", s, err)
	}
	return &mdns.EDNS0_LOCAL{Code: number(t, code, nil), Data: b}
}

func wireOf(t testing.TB, line string) []byte {
	t.Helper()
	msg, _, _ := parseQuery(t, line)
	return msg
}

func subnetOption(p netip.Prefix) *mdns.EDNS0_SUBNET {
	o := &mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
	if p.Addr().Is6() {
		o.Family = 2
	}
	return o
}

func number(t testing.TB, s string, names map[string]uint16) uint16 {
	t.Helper()
	if v, ok := names[s]; ok {
		return v
	}
	v, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		t.Fatalf("%q is no number and no name that is known", s)
	}
	return uint16(v)
}
