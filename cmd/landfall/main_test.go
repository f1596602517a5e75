package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files anew; commit them only when you understand each change")

// With $TEST_LANDFALL the test binary is the program itself, so that tests can run it as a process of its own. The labs
// that it starts then run it as their nodes.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_LANDFALL") != "" {
		main()
	}
	for _, name := range []string{"LANDFALL_ADMIN", "LANDFALL_TOKEN"} { // of whoever runs the tests
		_ = os.Unsetenv(name)
	}
	time.Local = time.UTC
	os.Exit(m.Run())
}

// command runs a command line inside the test.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = execute(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

// program is a landfall process.
type program struct {
	*exec.Cmd
	out, err notes
	ended    chan struct{} // closed when it has ended
}

// notes is a writer that can be read while others write.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// start starts landfall as a process; env has NAME=VALUE pairs.
func start(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{})}
	p.Stdout, p.Stderr = &p.out, &p.err
	p.Env = append(append(os.Environ(), "TEST_LANDFALL=1"), env...)
	p.SysProcAttr = ownGroup()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%v said:\n%s%s", args, p.out.String(), p.err.String())
		}
	})
	return p
}

// exit waits for the process's end and returns its exit code.
func (p *program) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		t.Fatal("the process does not end")
		return -1
	}
}

// until waits until what the function lacks is nothing; the process must not end meanwhile.
func (p *program) until(t *testing.T, lacks func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for missing := lacks(); missing != ""; missing = lacks() {
		select {
		case <-p.ended:
			if missing = lacks(); missing != "" {
				t.Fatalf("the process ended (%s): %s", p.ProcessState, missing)
			}
			return
		case <-ctx.Done():
			t.Fatal(missing)
		case <-tick.C:
		}
	}
}

// says waits until a text is in what the process said.
func (p *program) says(t *testing.T, n *notes, text string) {
	t.Helper()
	p.until(t, func() string {
		if strings.Contains(n.String(), text) {
			return ""
		}
		return fmt.Sprintf("it does not say %q", text)
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is now\n%s\nand was\n%s", name, got, want)
	}
}

// The help of every command, in one file: what people read is reviewed like code.
func TestHelpGolden(t *testing.T) {
	var all strings.Builder
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "completion" || c.Name() == "help" {
			return
		}
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		code, out, errs := command(t, args...)
		if code != 0 || errs != "" {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
		fmt.Fprintf(&all, "$ landfall %s\n%s\n", strings.Join(args, " "), out)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	golden(t, "help.txt", all.String())
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("flet: shop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{}, 0, ""},
		{[]string{"version"}, 0, ""},
		{[]string{"schema"}, 0, ""},
		{[]string{"drill", "list"}, 0, ""},
		{[]string{"fleet"}, 0, ""},
		{[]string{"bogus"}, 2, `unknown command "bogus"`},
		{[]string{"fleet", "bogus"}, 2, `unknown command "bogus"`},
		{[]string{"completion", "bogus"}, 2, `unknown command "bogus"`},
		{[]string{"--bogus"}, 2, "unknown flag: --bogus"},
		{[]string{"status", "--bogus"}, 2, "unknown flag: --bogus"},
		{[]string{"status", "more"}, 2, "see `landfall status --help`"},
		{[]string{"status", "-o", "yaml"}, 2, "expected text or json"},
		{[]string{"drill", "list", "-o", "yaml"}, 2, "expected text or json"},
		{[]string{"drill", "kill-region", "-o", "yaml"}, 2, "expected text or json"},
		{[]string{"status", "--admin", "http://127.0.0.1:1"}, 3, "the node can not be reached at http://127.0.0.1:1"},
		{[]string{"events", "--follow", "--admin", "127.0.0.1:1"}, 3, "can not be reached"},
		{[]string{"drain", "region", "x", "--admin", "127.0.0.1:1"}, 3, "can not be reached"},
		{[]string{"purge", "--service", "s", "--url", "http://a/", "--admin", "127.0.0.1:1"}, 3, "can not be reached"},
		{[]string{"explain"}, 2, "accepts 1 arg(s), received 0"},
		{[]string{"explain", "a.example", "--client", "home"}, 2, "expected an IP address"},
		{[]string{"drain", "region"}, 2, "accepts 2 arg(s), received 1"},
		{[]string{"drain", "planet", "mars"}, 2, "expected `region NAME`, `node NAME`"},
		{[]string{"undrain", "planet", "mars"}, 2, "expected `region NAME`, `node NAME`"},
		{[]string{"drain", "region", "x", "--for", "soon"}, 2, "invalid argument"},
		{[]string{"purge"}, 2, "at least one --url, --prefix, --host or --key, or --all alone"},
		{[]string{"validate"}, 2, "accepts 1 arg(s)"},
		{[]string{"validate", filepath.Join(dir, "missing.yaml")}, 2, "does not exist"},
		{[]string{"validate", bad}, 2, "flet: unknown key"},
		{[]string{"run"}, 2, "--config FILE is needed"},
		{[]string{"run", "--config", bad}, 2, "flet: unknown key"},
		{[]string{"run", "--config", filepath.Join(dir, "missing.yaml")}, 1, "does not exist"},
		{[]string{"run", "--config", bad, "--advertise", "home"}, 2, "expected an IP address that others can reach"},
		{[]string{"run", "--config", bad, "--latency", "far"}, 2, "expected REGION=DURATION"},
		{[]string{"lab", "--regions", "99"}, 2, "1 to 8 regions"},
		{[]string{"lab", "--net", "255"}, 2, "0 to 254"},
		{[]string{"lab", "--latency", "far"}, 2, "expected REGION:REGION=DURATION"},
		{[]string{"lab", "--traffic", "-1"}, 2, "0 to 100 requests a second"},
		{[]string{"drill"}, 2, "accepts 1 arg(s)"},
		{[]string{"drill", "flood"}, 2, "`landfall drill list` shows them"},
		{[]string{"drill", "kill-region", "--rate", "0"}, 2, "--rate 0"},
		{[]string{"drill", "kill-region", "--rate", "NaN"}, 2, "--rate NaN"},
		{[]string{"drill", "kill-region", "--regions", "1", "--net", "250"}, 2, "a drill needs at least 2"},
		{[]string{"fleet", "cert", "n1", "--dir", dir}, 1, "`landfall fleet init` makes one"},
	} {
		code, _, errs := command(t, c.args...)
		if code != c.code || !strings.Contains(errs, c.err) || c.err == "" && errs != "" {
			t.Errorf("%v: exit %d, want %d; it says %q, want %q", c.args, code, c.code, errs, c.err)
		}
		if c.code != 0 && (strings.Contains(errs, "Usage:") || strings.Count(errs, "landfall: ") > 1) {
			t.Errorf("%v: too much is said: %s", c.args, errs)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, errs := command(t, "completion", shell); code != 0 || errs != "" || !strings.Contains(out, "landfall") {
			t.Errorf("%s: exit %d, %s", shell, code, errs)
		}
	}
	if code, out, _ := command(t, "__complete", "dr"); code != 0 || !strings.Contains(out, "drain\t") || !strings.Contains(out, "drill\t") {
		t.Errorf("completion of dr: exit %d, %s", code, out)
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	_, script, _ := command(t, "completion", "bash")
	cmd := exec.CommandContext(t.Context(), bash, "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("bash does not take the script: %v\n%s", err, out)
	}
}

func TestFleetFilesAreNeverOverwritten(t *testing.T) {
	dir := t.TempDir()
	code, out, errs := command(t, "fleet", "init", "--dir", dir)
	if code != 0 || !strings.HasPrefix(out, "LANDFALL_MESH_KEY=") || len(strings.TrimSpace(out)) != len("LANDFALL_MESH_KEY=")+44 || !strings.Contains(errs, "keep ca.key off the nodes") {
		t.Errorf("init: exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := command(t, "fleet", "cert", "n1", "--dir", dir, "--ip", "10.0.0.1"); code != 0 || !strings.Contains(out, "n1.pem") {
		t.Errorf("cert: exit %d\n%s%s", code, out, errs)
	}
	for _, args := range [][]string{{"fleet", "init", "--dir", dir}, {"fleet", "cert", "n1", "--dir", dir}} {
		if code, _, errs := command(t, args...); code != 1 || !strings.Contains(errs, "nothing was overwritten") {
			t.Errorf("%v again: exit %d, %s", args, code, errs)
		}
	}
	for _, key := range []string{"ca.key", "n1.key"} {
		if info, err := os.Stat(filepath.Join(dir, key)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v %v", key, info, err)
		}
	}
}
