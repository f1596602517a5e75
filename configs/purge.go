package configs

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Purge names what invalidates beside people.
type Purge struct {
	Sources  []PurgeSource           `yaml:"sources" doc:"Event streams. All nodes consume them together: each event is taken by one, and again by another where that one dies."`
	Webhooks map[string]PurgeWebhook `yaml:"webhooks" doc:"Webhooks by name, taken at /.well-known/landfall/purge/NAME on every host."`
}

// PurgeSource is an event stream: of NATS JetStream, or of Kafka.
type PurgeSource struct {
	NATS    StringList `yaml:"nats" doc:"URLs of NATS servers, such as nats://10.1.0.5:4222."`
	Stream  string     `yaml:"stream" doc:"JetStream stream; with nats."`
	Subject string     `yaml:"subject" doc:"Only events of this subject (wildcards * and >); with nats. Absent: all of the stream."`
	Durable string     `yaml:"durable" doc:"Name of the durable consumer; with nats. It is made where it does not exist, and begins with the stream's next event." default:"landfall"`

	Kafka StringList `yaml:"kafka" doc:"Addresses of Kafka brokers, such as 10.1.0.6:9092."`
	Topic string     `yaml:"topic" doc:"Kafka topic; with kafka."`
	Group string     `yaml:"group" doc:"Consumer group; with kafka. Partitions of which it has committed nothing begin an hour back." default:"landfall"`

	TLS      bool   `yaml:"tls" doc:"Encrypt, by the system's certificate authorities or ca." default:"false"`
	CA       string `yaml:"ca" doc:"PEM file with the certificate authorities that the servers' certificates are checked by; with tls." path:"true"`
	User     string `yaml:"user" doc:"User name (Kafka: SASL PLAIN); needs password."`
	Password string `yaml:"password" doc:"Its password." secret:"true"`

	Poison string    `yaml:"poison" doc:"Subject or topic that events which can't be understood are copied to. Absent: they are counted and shown in the events alone."`
	Map    PurgeRule `yaml:"map" doc:"What an event purges." required:"true"`
}

// Name tells the source apart: in metrics, events and the admin API.
func (s PurgeSource) Name() string {
	if len(s.NATS) > 0 {
		return "nats/" + s.Stream + "/" + s.Durable
	}
	return "kafka/" + s.Topic + "/" + s.Group
}

// PurgeRule maps an event, a JSON object, to what it purges: {name} in a template stands for the member of that name, and
// {a.b} for the member b of a. A list stands for each of its elements. A template whose members are not all there purges
// nothing.
type PurgeRule struct {
	Service  string   `yaml:"service" doc:"The service whose objects go." required:"true"`
	Keys     []string `yaml:"keys" doc:"Surrogate keys, such as sku-{sku} or {tags}."`
	URLs     []string `yaml:"urls" doc:"URLs, such as https://shop.example.com/p/{slug}. What stands for a member is escaped."`
	Prefixes []string `yaml:"prefixes" doc:"Beginnings of URLs, such as https://shop.example.com/c/{category}/."`
	Soft     bool     `yaml:"soft" doc:"Mark stale instead of removing." default:"false"`
}

// PurgeWebhook is a webhook signed by the Standard Webhooks specification: webhook-id, webhook-timestamp and
// webhook-signature, an HMAC-SHA256.
type PurgeWebhook struct {
	Secrets StringList `yaml:"secrets" doc:"Shared secrets of at least 16 bytes, as text, or whsec_ and base64. More than one while they are rotated." required:"true" secret:"true"`
	Window  Duration   `yaml:"window" doc:"How far its timestamp may be from now. Within it each webhook-id is taken once by a node." default:"5m" min:"10s" max:"1h"`
	Map     PurgeRule  `yaml:"map" doc:"What an event purges." required:"true"`
}

// subjectPattern is a subject of NATS with its wildcards, topicPattern a Kafka topic's name or a subject to publish to.
var (
	subjectPattern = regexp.MustCompile(`^[A-Za-z0-9_*-]+(\.[A-Za-z0-9_*-]+)*(\.>)?$|^>$`)
	topicPattern   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
)

// purge checks the sources and webhooks.
func (v *validator) purge() {
	for i := range v.c.Purge.Sources {
		v.purgeSource(index("purge.sources", i), &v.c.Purge.Sources[i])
	}
	v.distinct("purge.sources", len(v.c.Purge.Sources), func(i int) string { return v.c.Purge.Sources[i].Name() })
	for name, hook := range v.c.Purge.Webhooks {
		path := join("purge.webhooks", name)
		v.name(path, "webhook", name)
		for i, s := range hook.Secrets {
			if _, err := WebhookSecret(s); err != nil && !v.unsure(path+".secrets") {
				v.fault(v.elementPath(path+".secrets", i), "%s", err)
			}
		}
		v.purgeRule(path+".map", hook.Map)
	}
}

func (v *validator) purgeSource(path string, s *PurgeSource) {
	nats, kafka := len(s.NATS) > 0, len(s.Kafka) > 0
	switch {
	case nats == kafka && !v.unsure(path+".nats") && !v.unsure(path+".kafka"):
		v.fault(path, "needs either nats or kafka: the servers of the stream")
	case nats && s.Stream == "" && !v.unsure(path+".stream"):
		v.fault(path, "needs stream, the name of the JetStream stream")
	case kafka && s.Topic == "" && !v.unsure(path+".topic"):
		v.fault(path, "needs topic, the name of the Kafka topic")
	}
	for i, raw := range s.NATS {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss" {
			at := v.elementPath(path+".nats", i)
			v.fault(at, "%s is not a NATS URL: write it like nats://10.1.0.5:4222", v.show(at, raw))
		}
	}
	for i, addr := range s.Kafka {
		if host, port, ok := strings.Cut(addr, ":"); !ok || host == "" || port == "" {
			at := v.elementPath(path+".kafka", i)
			v.fault(at, "%s is not an address: write it like 10.1.0.6:9092", v.show(at, addr))
		}
	}
	for _, name := range []struct{ key, value string }{{"stream", s.Stream}, {"durable", s.Durable}} {
		if strings.ContainsAny(name.value, ". *>\t\r\n/\\") {
			v.fault(path+"."+name.key, "%s can't name a %s: JetStream allows no dots, spaces, * and >", v.show(path+"."+name.key, name.value), name.key)
		}
	}
	for _, name := range []struct {
		key, value string
		allowed    *regexp.Regexp
	}{{"subject", s.Subject, subjectPattern}, {"topic", s.Topic, topicPattern}, {"group", s.Group, topicPattern}, {"poison", s.Poison, topicPattern}} {
		if name.value != "" && !name.allowed.MatchString(name.value) {
			v.fault(path+"."+name.key, "%s can't be a %s: use letters, digits, dots, - and _", v.show(path+"."+name.key, name.value), name.key)
		}
	}
	if s.CA != "" && !s.TLS && !v.unsure(path+".tls") {
		v.fault(path+".ca", "means nothing without tls: true")
	}
	if (s.User == "") != (s.Password == "") && !v.unsure(path+".password") {
		v.fault(path, "user and password belong together: give both or none")
	}
	v.purgeRule(path+".map", s.Map)
}

func (v *validator) purgeRule(path string, r PurgeRule) {
	if r.Service != "" && v.c.Services[r.Service] == nil && !v.badAbove("services") {
		v.fault(path+".service", "there is no service %s", v.show(path+".service", r.Service))
	}
	if len(r.Keys)+len(r.URLs)+len(r.Prefixes) == 0 {
		v.fault(path, "purges nothing: name keys, urls or prefixes")
	}
	check := func(key string, list []string, isURL bool) {
		for i, t := range list {
			at := index(path+"."+key, i)
			parts, err := ParseTemplate(t)
			switch {
			case err != nil:
				v.fault(at, "%s: %s", v.show(at, t), err)
			case isURL && (parts[0].Member || !strings.HasPrefix(t, "http://") && !strings.HasPrefix(t, "https://")):
				v.fault(at, "%s is not a URL: write it like https://shop.example.com/p/{slug}", v.show(at, t))
			}
		}
	}
	check("keys", r.Keys, false)
	check("urls", r.URLs, true)
	check("prefixes", r.Prefixes, true)
}

// TemplatePart is a piece of a template: text as it stands, or the path of a member.
type TemplatePart struct {
	Text   string
	Member bool
}

// ParseTemplate reads a template of a PurgeRule. {{ and }} stand for braces.
func ParseTemplate(s string) ([]TemplatePart, error) {
	var out []TemplatePart
	text := ""
	flush := func() {
		if text != "" {
			out = append(out, TemplatePart{Text: text})
		}
		text = ""
	}
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "{{"), strings.HasPrefix(s[i:], "}}"):
			text += s[i : i+1]
			i++
		case s[i] == '}':
			return nil, fmt.Errorf("a } without its {; for the character itself write }}")
		case s[i] == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return nil, fmt.Errorf("a { without its }; for the character itself write {{")
			}
			name := s[i+1 : i+end]
			if name == "" || strings.ContainsAny(name, "{ \t") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
				return nil, fmt.Errorf("{%s} does not name a member: write it like {sku} or {product.sku}", name)
			}
			flush()
			out = append(out, TemplatePart{Text: name, Member: true})
			i += end
		default:
			text += s[i : i+1]
		}
	}
	flush()
	if len(out) == 0 {
		return nil, fmt.Errorf("is empty")
	}
	return out, nil
}
