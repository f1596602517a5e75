package configs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// eachField calls visit for every field of every section type, once each.
func eachField(visit func(section reflect.Type, sf reflect.StructField)) {
	seen := make(map[reflect.Type]bool)
	var walkType func(t reflect.Type)
	walkType = func(t reflect.Type) {
		t = bare(t)
		switch {
		case t.Kind() == reflect.Map || t.Kind() == reflect.Slice:
			walkType(t.Elem())
		case isSection(t) && !seen[t]:
			seen[t] = true
			for i := range t.NumField() {
				visit(t, t.Field(i))
				walkType(t.Field(i).Type)
			}
		}
	}
	walkType(reflect.TypeFor[Config]())
}

func TestEveryFieldIsTagged(t *testing.T) {
	eachField(func(section reflect.Type, sf reflect.StructField) {
		name := section.Name() + "." + sf.Name
		key, doc := sf.Tag.Get("yaml"), sf.Tag.Get("doc")
		switch {
		case !sf.IsExported():
			t.Errorf("%s is not exported: nothing would fill it", name)
		case key == "":
			t.Errorf("%s has no yaml tag", name)
		case key != "-" && !plainName(key):
			t.Errorf("%s has the key %q", name, key)
		case key != "-" && (doc == "" || !strings.HasSuffix(doc, ".") && !strings.HasSuffix(doc, ")")):
			t.Errorf("%s has no doc tag that is a sentence: %q", name, doc)
		case strings.Contains(doc, "\n"):
			t.Errorf("%s has a line break in its doc", name)
		}
		for _, tag := range []string{"required", "secret", "path"} {
			if v, ok := sf.Tag.Lookup(tag); ok && v != "true" {
				t.Errorf("%s: the tag %s is %q, which means nothing", name, tag, v)
			}
		}
		rest := string(sf.Tag)
		for _, tag := range []string{"yaml", "doc", "default", "min", "max", "enum", "required", "secret", "path"} {
			if v, ok := sf.Tag.Lookup(tag); ok {
				rest = strings.Replace(rest, fmt.Sprintf("%s:%q", tag, v), "", 1)
			}
		}
		if strings.TrimSpace(rest) != "" {
			t.Errorf("%s has a tag that nothing reads: %s", name, rest)
		}
	})
}

func TestTagsAreSound(t *testing.T) {
	eachField(func(section reflect.Type, sf reflect.StructField) {
		name := section.Name() + "." + sf.Name
		i := slices.IndexFunc(fieldsOf(section), func(f field) bool { return f.name == sf.Tag.Get("yaml") })
		if i < 0 {
			return
		}
		f := fieldsOf(section)[i]
		value := reflect.New(sf.Type).Elem()
		if f.hasDefault {
			if err := setDefault(value, f); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			r := newReport("")
			walk(value, f, f.name, func(v reflect.Value, f field, path string) {
				switch {
				case v.Kind() == reflect.String && f.enum != nil:
					r.oneOf(v.String(), f.enum, path)
				case v.CanInt() && isScalar(v.Type()):
					r.inRange(v, f, path)
				}
			})
			if err := r.result(); err != nil {
				t.Errorf("%s: its own default is refused: %v", name, err)
			}
		}
		number := element(sf.Type)
		for _, tag := range []string{f.min, f.max} {
			if tag == "" {
				continue
			}
			if number.Kind() != reflect.Int && number.Kind() != reflect.Int64 {
				t.Errorf("%s has a bound that nothing compares", name)
			} else if _, ok := limit(number, tag); !ok {
				t.Errorf("%s: the bound %q can't be read", name, tag)
			}
		}
		if f.required && f.hasDefault {
			t.Errorf("%s is required and has a default", name)
		}
		if f.path && sf.Type.Kind() != reflect.String {
			t.Errorf("%s: only a string can be a path", name)
		}
	})
}

// absentMeans is what a key without a default means when it is absent, or why its zero value is right.
var absentMeans = map[string]string{
	"Listen.Mesh": "no listener", "Listen.Peer": "no listener",
	"MeshTLS.CA": "no peers", "MeshTLS.Cert": "no peers", "MeshTLS.Key": "no peers",
	"DNS.GeoIP": "no geography", "DNS.ASN": "no autonomous systems", "DNSRTT.Header": "nobody tells", "ACME.Email": "no contact", "ACME.CA": "the system's CAs",
	"Service.Primary": "every region takes writes", "Pool.File": "none",
	"Canary.Header": "none", "Canary.Cookie": "none", "Match.Flag": "none", "Fault.Service": "every", "Fault.Route": "all", "Fault.Origin": "each",
	"Limits.ConnectionRate": "unlimited", "Shutdown.DNSWait": "the longest TTL, by fillFleet", "Zone.MinTTL": "a quarter of the TTL, by fillFleet",
	"Service.Debug": "off", "Route.To": "the service itself", "KeyQuery.Sort": "off", "Check.Header": "any", "Check.Body": "any", "Check.Service": "the server as a whole", "CORS.Credentials": "off", "Respond.Body": "empty", "Rewrite.StripPrefix": "nothing",
	"Rewrite.AddPrefix": "nothing", "Rewrite.Host": "the client's", "OriginTLS.ServerName": "the host of the URL",
	"OriginTLS.CA": "the system's CAs", "OriginTLS.Cert": "none is shown", "OriginTLS.Key": "none is shown", "Check.Host": "the origin's own", "Admin.PProf": "off",
	"PurgeSource.Stream": "none, and kafka instead", "PurgeSource.Subject": "all", "PurgeSource.Topic": "none, and nats instead",
	"PurgeSource.CA": "the system's CAs", "PurgeSource.User": "none", "PurgeSource.Password": "none", "PurgeSource.Poison": "no copy",
}

func TestNoDefaultIsForgotten(t *testing.T) {
	eachField(func(section reflect.Type, sf reflect.StructField) {
		name := section.Name() + "." + sf.Name
		_, hasDefault := sf.Tag.Lookup("default")
		if !isScalar(sf.Type) || sf.Type.Kind() == reflect.Pointer || sf.Tag.Get("yaml") == "-" ||
			hasDefault || sf.Tag.Get("required") == "true" {
			if _, ok := absentMeans[name]; ok {
				t.Errorf("%s does not belong in absentMeans", name)
			}
			return
		}
		if absentMeans[name] == "" {
			t.Errorf("%s has no default: give it one, or say in absentMeans what an absent one means", name)
		}
	})
}

// anythingGoes are the keys whose every value of their type is right.
var anythingGoes = []string{
	"services.shop.routes[].auth.jwt.issuer", "services.shop.routes[].auth.jwt.audience", "services.shop.routes[].auth.jwt.require.scope", "services.shop.routes[].auth.jwt.headers.X-User",
	"mesh.tls.ca", "mesh.tls.cert", "mesh.tls.key", "dns.geoip", "dns.asn", `dns.zones["edge.example.com"].dnssec.keys`, "tls.certificates[].cert", "tls.certificates[].key", "tls.acme.ca",
	"services.shop.pool.check.body", "services.docs.pool.check.service", "services.shop.routes[].respond.body", "services.shop.routes[].basic_auth.realm", "services.shop.routes[].basic_auth.users[].name",
	"services.shop.routes[].rewrite.query.via", "services.shop.routes[].headers.request.set.X-Edge",
	"services.shop.routes[].headers.response.set.Strict-Transport-Security",
	"services.shop.pools.eu-west.file",
	"services.shop.pool.tls.ca", "services.shop.pool.tls.cert", "services.shop.pool.tls.key",
	"observe.access_log.path", "cache.disk.path", "admin.tokens[].name",
	"purge.sources[].ca", "purge.sources[].user", "purge.sources[].password", "purge.sources[].map.keys[]", "purge.webhooks.cms.map.keys[]",
}

// TestEveryKeyRefusesNonsense puts nonsense in the place of each scalar of the full example, one by one: validation has
// forgotten the key that takes it.
func TestEveryKeyRefusesNonsense(t *testing.T) {
	data, err := Examples.ReadFile("examples/three-regions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	tried := 0
	eachScalar(doc.Content[0], "", func(n *yaml.Node, path string) {
		if slices.Contains(anythingGoes, path) {
			return
		}
		tried++
		before := *n
		*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: "?! non sense/"}
		text, err := yaml.Marshal(&doc)
		*n = before
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("x", text, "", environment); err == nil {
			t.Errorf("%s takes any text", path)
		}
	})
	if tried < 100 {
		t.Errorf("only %d scalars were tried", tried)
	}
}

// eachScalar visits the values below n; the numbers in lists are left out of their paths.
func eachScalar(n *yaml.Node, path string, visit func(n *yaml.Node, path string)) {
	switch n.Kind {
	case yaml.ScalarNode:
		visit(n, path)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			eachScalar(n.Content[i+1], join(path, n.Content[i].Value), visit)
		}
	case yaml.SequenceNode:
		for _, sub := range n.Content {
			eachScalar(sub, path+"[]", visit)
		}
	}
}

// TestBoundsAreChecked holds that validation refuses what lies just outside of each min and max.
func TestBoundsAreChecked(t *testing.T) {
	c := mustParse(t, exampleText(t))
	checked := 0
	walk(reflect.ValueOf(c), field{}, "", func(v reflect.Value, f field, path string) {
		if !v.CanInt() || !isScalar(v.Type()) || !v.CanSet() {
			return
		}
		before := v.Int()
		for _, bound := range []struct {
			tag  string
			step int64
		}{{f.min, -1}, {f.max, 1}} {
			n, ok := limit(v.Type(), bound.tag)
			if !ok {
				continue
			}
			checked++
			v.SetInt(n)
			r := newReport("")
			r.bounds(c)
			if err := r.result(); err != nil {
				t.Errorf("%s refuses its own bound %s: %v", path, bound.tag, err)
			}
			v.SetInt(n + bound.step)
			r = newReport("")
			if r.bounds(c); len(r.errs) != 1 || r.errs[0].Path != path {
				t.Errorf("%s beyond its bound %s: %v", path, bound.tag, r.errs)
			}
		}
		v.SetInt(before)
	})
	if checked < 60 {
		t.Errorf("only %d bounds were checked", checked)
	}
}

func exampleText(t testing.TB) string {
	t.Helper()
	data, err := Examples.ReadFile("examples/three-regions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestFullExampleLeavesNothingZero holds that the decoder fills every field: a new one must be given a value here too.
func TestFullExampleLeavesNothingZero(t *testing.T) {
	c, err := Parse("x", []byte(exampleText(t)), "/etc", environment)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	walk(reflect.ValueOf(c), field{}, "", func(v reflect.Value, _ field, _ string) {
		if !isSection(v.Type()) {
			return
		}
		for i := range v.NumField() {
			name := v.Type().Name() + "." + v.Type().Field(i).Name
			seen[name] = seen[name] || !v.Field(i).IsZero()
		}
	})
	for name, filled := range seen {
		if !filled {
			t.Errorf("%s is zero", name)
		}
	}
}
