package drill

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"landfall/gateway/admin"
)

// restPatience is for a fleet to come to rest: as long as the return of a region that fell often may be waited out, and
// the slow start after it.
const restPatience = 6 * time.Minute

// rest waits until every region has all of its clients, by the word of every name server: what an earlier drill struck
// is still on its way home for a while, and would spoil the account of the next.
func (s *session) rest(ctx context.Context) error {
	restless, said := "", false
	quiet, err := s.until(ctx, restPatience, func() (bool, error) {
		restless = s.restless(ctx)
		if restless != "" && !said {
			s.say("waiting until the fleet is at rest: %s …", restless)
			said = true
		}
		return restless == "", ctx.Err()
	})
	if err == nil && !quiet {
		err = fmt.Errorf("the lab did not come to rest within %s: %s; `landfall status` and `landfall verdicts` tell why", restPatience, restless)
	}
	return err
}

// restless says which clients are not at home, or nothing.
func (s *session) restless(ctx context.Context) string {
	const networks = 32 // of each crowd: all of them are at home only near the end of a slow start
	for _, r := range s.fleet.Regions {
		ask := []netip.Prefix{r.Prefix}
		base := r.Crowd.Addr().As4()
		for k := range networks {
			binary.BigEndian.PutUint16(base[2:], uint16(k)<<8)
			ask = append(ask, netip.PrefixFrom(netip.AddrFrom4(base), 24))
		}
		for _, at := range s.fleet.Regions {
			for _, server := range s.fleet.NameServers(at) {
				for _, p := range ask {
					region, err := s.steered(ctx, server, s.fleet.Host, p)
					if err != nil {
						return err.Error()
					}
					if region != r.Name {
						return fmt.Sprintf("%s sends clients of %s to %s", server, r.Name, region)
					}
				}
			}
		}
	}
	return ""
}

// waitedOut tells whether a node keeps the target down for a while, since it fell often of late (see healthcheck.Policy).
func (s *session) waitedOut(ctx context.Context) bool {
	api := admin.NewClient(s.fleet.Admin, "", &http.Client{Timeout: controlPatience})
	defer api.Close()
	verdicts, _, err := api.Verdicts(ctx)
	if err != nil {
		return false // the account tells of what does not answer
	}
	for _, v := range verdicts {
		if v.Region == s.target.Name && v.Kept && v.Seen == "up" {
			return true
		}
	}
	return false
}
