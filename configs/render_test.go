package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

// TestSecretsNeverPrint prints a config and its parts in each way that a log or an API might.
func TestSecretsNeverPrint(t *testing.T) {
	c := mustParse(t, exampleText(t))
	hash := c.Admin.Tokens[0].Hash
	var out bytes.Buffer
	text := slog.New(slog.NewTextHandler(&out, nil))
	structured := slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range []any{c, *c, c.Mesh, &c.Mesh, c.Admin, c.Admin.Tokens, c.Admin.Tokens[0], &c.Admin.Tokens[0], c.DNS, c.DNS.Push, c.DNS.Push["corporate"].RFC2136} {
		fmt.Fprintf(&out, "%v %+v %#v %s\n", v, v, v, v)
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
		text.Info("config", "v", v)
		structured.Info("config", "v", v)
	}
	if strings.Contains(out.String(), hash) || strings.Contains(out.String(), testKey) {
		t.Error("a secret was printed")
	}
	if !strings.Contains(c.String(), redacted) || !strings.Contains(c.Mesh.String(), redacted) || !strings.Contains(c.Admin.Tokens[0].String(), "deploy") {
		t.Errorf("what is left out does not show: %s", c.Mesh)
	}
}

func TestEverySecretIsRedacted(t *testing.T) {
	c := mustParse(t, exampleText(t))
	secrets := 0
	walk(reflect.ValueOf(c), field{}, "", func(v reflect.Value, f field, path string) {
		if f.secret && v.Kind() == reflect.String {
			secrets++
			v.SetString("needle-in-" + path)
		}
	})
	data, err := json.Marshal(c)
	if err != nil || secrets < 2 || strings.Contains(string(data)+c.String(), "needle") {
		t.Errorf("%d secrets, %v", secrets, err)
	}
}

func TestJSONHasHumanForms(t *testing.T) {
	data, err := json.Marshal(mustParse(t, exampleText(t)))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Regions map[string]struct{ Location []float64 }
		Listen  struct {
			HTTPRedirect   bool     `json:"http_redirect"`
			TrustedProxies []string `json:"trusted_proxies"`
		}
		Cache struct {
			Memory string
		}
		Health struct{ Panic string }
		Limits struct {
			Rate string `json:"connection_rate"`
		}
		Services map[string]struct {
			Pool struct {
				Check struct {
					Expect   string
					Interval string
					Rise     int
				}
			}
			Routes []struct{ Cache any }
		}
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	shop := got.Services["shop"]
	if got.Regions["eu-west"].Location[0] != 53.35 || got.Cache.Memory != "1GiB" || got.Health.Panic != "50%" || got.Limits.Rate != "50/s" ||
		!got.Listen.HTTPRedirect || got.Listen.TrustedProxies[1] != "2001:db8::/32" || shop.Pool.Check.Expect != "200-299" ||
		shop.Pool.Check.Interval != "2s" || shop.Pool.Check.Rise != 2 || shop.Routes[0].Cache != "off" || shop.Routes[2].Cache != "on" {
		t.Errorf("%+v", got)
	}
}

// reparse writes a config out with its secrets, as if it were a file, and reads that.
func reparse(t testing.TB, c *Config) *Config {
	t.Helper()
	text, err := renderer{secrets: true, escape: true}.yaml(reflect.ValueOf(c))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again.yaml", text, c.Dir, environment)
	if err != nil {
		t.Fatalf("what was accepted is refused when it is written out: %v\n%s", err, text)
	}
	again.Hash = c.Hash
	return again
}

func TestWhatIsPrintedReadsBackTheSame(t *testing.T) {
	eachExample(t, func(t *testing.T, _ string, data []byte) {
		c := mustParse(t, string(data))
		if again := reparse(t, c); !reflect.DeepEqual(c, again) {
			t.Errorf("read   %s\nreread %s", c, again)
		}
	})
	c := mustParse(t, service("    pool: {check: {path: \"/$$$$$${a}$$x$\"}}\n")+"mesh: {tls: {ca: \"$${NODE}\", cert: \"$$$${NODE}/${NODE}\", key: \"${NODE}$$\"}}")
	if again := reparse(t, c); !reflect.DeepEqual(c, again) {
		t.Errorf("read   %s\nreread %s", c, again)
	}
}
