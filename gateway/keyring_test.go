package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"landfall/gateway/admin"
	"landfall/gateway/upstream"
	"landfall/routing/mesh"
)

func testKey(b byte) []byte { return bytes.Repeat([]byte{b}, meshKeySize) }

// A rotation on one node, step by step, with a restart after each.
func TestKeyringFollows(t *testing.T) {
	dir := t.TempDir()
	old, fresh, other := testKey(1), testKey(2), testKey(3)
	name := map[string]string{string(old): "old", string(fresh): "new", string(other): "other"}
	order := func(step string) keyOrder { return keyOrder{ID: "r1", Step: step, Key: mesh.KeyPrint("f", fresh)} }
	var used string
	use := func(keys [][]byte) error {
		used = ""
		for _, k := range keys {
			used += name[string(k)] + " "
		}
		return nil
	}
	config := [][]byte{old, other}
	for _, c := range []struct {
		step    string
		fetched []byte
		need    bool
		want    string // in force, after a restart too
	}{
		{stepAdd, nil, true, "old other "},
		{stepAdd, other, true, "old other "}, // another key than was asked for
		{stepAdd, fresh, false, "old other new "},
		{stepUse, nil, false, "new old other "},
		{stepAdd, nil, false, "old other new "}, // a step back
		{stepUse, nil, false, "new old other "},
		{"melt", nil, false, "new old other "}, // of a later version
		{stepRemove, nil, false, "new "},
	} {
		k, err := openKeyring("f", dir, config)
		if err != nil {
			t.Fatal(err)
		}
		need, err := k.follow(order(c.step), c.fetched, use)
		if err != nil || need != c.need || !need && c.step != "melt" && (used != c.want || !k.followed(order(c.step))) {
			t.Errorf("%s: need %t, %v, used %s", c.step, need, err, used)
		}
		if k, err = openKeyring("f", dir, config); err != nil {
			t.Fatal(err)
		}
		if _ = use(k.keys()); used != c.want {
			t.Errorf("after %s and a restart: %s, want %s", c.step, used, c.want)
		}
	}
	k, err := openKeyring("f", dir, [][]byte{fresh}) // mesh.key was brought up to it
	if err != nil || len(k.keys()) != 1 || !k.rotatedInto([][]byte{fresh}) || k.rotatedInto([][]byte{old}) {
		t.Errorf("%d keys, %v", len(k.keys()), err)
	}
	if got, err := PrimaryKey(dir); err != nil || got != base64.StdEncoding.EncodeToString(fresh) {
		t.Errorf("%s, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v: others may read the keys", info.Mode(), err)
	}
}

func TestKeyringAborts(t *testing.T) {
	k, _ := openKeyring("f", "", [][]byte{testKey(1)})
	o := keyOrder{ID: "r1", Step: stepAdd, Key: mesh.KeyPrint("f", testKey(2))}
	use := func([][]byte) error { return nil }
	if _, err := k.follow(o, testKey(2), use); err != nil || len(k.keys()) != 2 {
		t.Fatal(err)
	}
	o.Step = stepAbort
	if need, err := k.follow(o, nil, use); err != nil || need || len(k.prints()) != 1 || k.prints()[0] != mesh.KeyPrint("f", testKey(1)) {
		t.Errorf("%v %v", k.prints(), err)
	}
	if need, err := k.follow(keyOrder{ID: "r2", Step: stepAbort, Key: "ffffffff"}, nil, use); err != nil || need {
		t.Error("a node that never held the key can't follow its end")
	}
	// What can't be put into force isn't.
	o = keyOrder{ID: "r3", Step: stepAdd, Key: mesh.KeyPrint("f", testKey(4))}
	if _, err := k.follow(o, testKey(4), func([][]byte) error { return errors.New("no") }); err == nil || k.followed(o) || len(k.keys()) != 1 {
		t.Errorf("%v %v", err, k.prints())
	}
}

// A disk that can't keep the keys keeps the old ones in force; a file that can't be read stops the start, and its text is
// in no error.
func TestKeyringDisk(t *testing.T) {
	dir := t.TempDir()
	k, err := openKeyring("f", dir, [][]byte{testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	k.path = filepath.Join(dir, "absent", keyFile)
	o := keyOrder{ID: "r1", Step: stepAdd, Key: mesh.KeyPrint("f", testKey(2))}
	if _, err := k.follow(o, testKey(2), func([][]byte) error { t.Error("put into force"); return nil }); err == nil || len(k.keys()) != 1 {
		t.Errorf("%v", err)
	}
	for _, text := range []string{`{"keys":["c2VjcmV0"]}`, `secret`, ``} {
		write(t, filepath.Join(dir, keyFile), text)
		if _, err := openKeyring("f", dir, nil); err == nil || strings.Contains(err.Error(), "ecret") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzRing(f *testing.F) {
	f.Add([]byte(`{"keys":["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="],"retired":["00112233"],"done":"a/use"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRing("x", raw)
		if err != nil {
			return
		}
		k := &keyring{fleet: "f", config: [][]byte{testKey(1)}, ring: r}
		for _, key := range k.keys() {
			if len(key) != meshKeySize {
				t.Errorf("a key of %d bytes", len(key))
			}
		}
		if len(k.keys()) == 0 || len(r.Retired) > maxRetired {
			t.Errorf("%q leaves %d keys and %d retired", raw, len(k.keys()), len(r.Retired))
		}
	})
}

// A fleet rotates its key while it serves: each step waits for the node that lags, is refused while it does, survives a
// restart, and no key is ever told.
func TestFleetRotatesItsKey(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 89)
	api := f.nodes["eu"].admin
	ctx := t.Context()
	step := func(step, node string) admin.KeyStatus {
		t.Helper()
		s, err := f.nodes[node].admin.RotateKey(ctx, admin.KeyChange{Step: step})
		if err != nil {
			t.Fatalf("step %s: %v", step, err)
		}
		return s
	}
	await := func(what string, ok func(admin.KeyStatus) bool) admin.KeyStatus {
		t.Helper()
		var s admin.KeyStatus
		eventually(t, what, func() bool {
			var err error
			s, err = f.nodes["ap"].admin.Keys(ctx)
			return err == nil && ok(s)
		})
		return s
	}
	if s, err := api.Keys(ctx); err != nil || s.Step != "none" {
		t.Fatalf("%+v %v", s, err)
	}
	if _, err := api.RotateKey(ctx, admin.KeyChange{Step: "use"}); err == nil || !strings.Contains(err.Error(), "follows add") {
		t.Errorf("use without add: %v", err)
	}
	_ = f.nodes["us"].kill() // a node that lags
	fresh := step("add", "eu").Key
	await("ap has it, us lacks", func(s admin.KeyStatus) bool {
		return len(s.Waiting) == 1 && s.Waiting[0].Node == "us-1" && strings.HasPrefix(s.Waiting[0].Why, "it is not heard")
	})
	if _, err := api.RotateKey(ctx, admin.KeyChange{Step: "use"}); err == nil || !strings.Contains(err.Error(), "us-1: it is not heard") {
		t.Errorf("use while us lacks: %v", err)
	}
	f.launch("us")
	f.nodes["us"].awaitReady()
	await("us has caught up", func(s admin.KeyStatus) bool { return s.Next == "use" })
	if s := step("use", "ap"); s.Key != fresh {
		t.Errorf("another key: %+v", s)
	}
	await("all use it", func(s admin.KeyStatus) bool { return s.Next == "remove" })
	old := f.nodes["us"].n.keys.keys()[1]
	step("remove", "ap") // the node that was asked: another may hear a moment later that all use it
	s := await("it is done", func(s admin.KeyStatus) bool { return s.Finished })
	for _, n := range s.Nodes {
		if len(n.Keys) != 1 || n.Keys[0] != fresh || !n.Kept {
			t.Errorf("%+v", n)
		}
	}

	// The config still names the old key. A node that restarts goes on with the new one, and the fleet is whole.
	_ = f.nodes["ap"].kill()
	f.launch("ap")
	f.nodes["ap"].awaitReady()
	f.settle()
	for _, r := range f.regions {
		if got := f.nodes[r].n.keys.prints(); len(got) != 1 || got[0] != fresh {
			t.Errorf("%s holds %v", r, got)
		}
	}
	// mesh.key is brought up to it by a reload, though it shares nothing with the config before.
	key := base64.StdEncoding.EncodeToString(f.nodes["us"].n.keys.keys()[0])
	f.reload(strings.Replace(f.config(""), f.site.key, key, 1), f.regions...)

	for _, r := range f.regions { // never told
		for _, e := range f.nodes[r].events() {
			if strings.Contains(e, key) || strings.Contains(e, f.site.key) {
				t.Errorf("an event tells a key: %s", e)
			}
		}
		for _, reg := range f.nodes[r].n.fleet.Registers("") {
			if bytes.Contains(reg.Value, []byte(key)) {
				t.Errorf("register %s holds a key", reg.Key)
			}
		}
	}
	// Nor is any key given but the one that is rotated in.
	for print, want := range map[string]int{fresh: http.StatusOK, mesh.KeyPrint("test", old): http.StatusNotFound, "": http.StatusNotFound} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://us-1"+upstream.PeerDomain+keyPath, strings.NewReader(`{"key":"`+print+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := f.nodes["eu"].n.peers.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("key %q: %d", print, resp.StatusCode)
		}
	}
}

func TestSoloRegistersAreBounded(t *testing.T) {
	p := start(t, Options{ConfigFile: write(t, filepath.Join(t.TempDir(), "c.yaml"), `services: {web: {hosts: ["*"], pools: {any: {origins: ["http://127.0.0.1:1"]}}}}`)})
	alone := p.n.fleet.(*solo)
	alone.mu.Lock()
	for i := range mesh.MaxRegisters - 1 {
		key := fmt.Sprint("x/", i)
		alone.registers[key] = soloRegister{Register: mesh.Register{Key: key, Value: []byte("1")}}
	}
	alone.mu.Unlock()
	if _, err := alone.Set(t.Context(), "x/last", []byte("1"), 0); err != nil {
		t.Error(err)
	}
	_, err := alone.Set(t.Context(), "x/more", []byte("1"), 0)
	if err == nil || !strings.Contains(err.Error(), "registers are in use") {
		t.Errorf("%d registers, %v", len(p.n.fleet.Registers("x/")), err)
	}
	if _, err := p.n.fleet.Set(t.Context(), p.n.fleet.Registers("x/")[0].Key, []byte("2"), 0); err != nil {
		t.Errorf("one that is there can't be changed: %v", err)
	}
	if _, err := p.admin.RotateKey(t.Context(), admin.KeyChange{Step: "add"}); err == nil || !strings.Contains(err.Error(), "no mesh") {
		t.Errorf("%v", err)
	}
}

// TestKeyringTakesWhatFollowsIt: a node that missed the end of a rotation speaks with the key that its operator then puts
// into mesh.key, and a config of before a rotation changes nothing.
func TestKeyringTakesWhatFollowsIt(t *testing.T) {
	dir := t.TempDir()
	first, kept, next := testKey(1), testKey(2), testKey(3)
	k, err := openKeyring("f", dir, [][]byte{first})
	if err != nil {
		t.Fatal(err)
	}
	o := keyOrder{ID: "r1", Key: mesh.KeyPrint("f", kept)}
	for _, o.Step = range []string{stepAdd, stepUse, stepRemove} {
		if need, err := k.follow(o, kept, func([][]byte) error { return nil }); need || err != nil {
			t.Fatal(o.Step, need, err)
		}
	}
	for _, c := range []struct {
		name         string
		config, want [][]byte
	}{
		{"the key of before", [][]byte{first}, [][]byte{kept}},
		{"a key that is not known here", [][]byte{next}, [][]byte{next, kept}},
		{"the same before the one that is", [][]byte{next, kept}, [][]byte{next, kept}},
		{"the same behind it", [][]byte{kept, next}, [][]byte{kept, next}},
		{"the same behind a retired one", [][]byte{first, next}, [][]byte{kept, next}},
	} {
		k, err := openKeyring("f", dir, c.config)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.keys(); !slices.EqualFunc(got, c.want, bytes.Equal) {
			t.Errorf("%s: %v in force, want %v", c.name, got, c.want)
		}
	}
}
